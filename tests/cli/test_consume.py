"""`millstream consume`: rows for a person and for a pipe, to the end or on and on."""

from __future__ import annotations

import io
import json
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from rich.console import Console

from millstream.cli.cells import column_texts, print_rows
from millstream.log import Log
from tests.cli.conftest import Command
from tests.cli.process_kit import started, stop

TEN = datetime(2024, 1, 1, 10, tzinfo=UTC)
ROWS = pa.table(
    {
        "at": pa.array([TEN, TEN + timedelta(hours=1)], pa.timestamp("us", "UTC")),
        "text": ["[red]", None],
        "n": pa.array([1, 20], pa.int64()),
    }
)


@pytest.mark.usefixtures("clicks")
class TestFormats:
    def test_rows_come_back_as_they_went_in(self, millstream: Command) -> None:
        code, out, _ = millstream("consume", "clicks", "--format", "jsonl")
        rows = [json.loads(line) for line in out.splitlines()]
        assert code == 0
        assert [row["n"] for row in rows] == list(range(8))
        assert rows[7] == {"time": "2024-01-01T11:10:00Z", "user": "b", "n": 7}

    def test_csv_goes_around(self, millstream: Command, tmp_path: Path) -> None:
        _, first, _ = millstream("consume", "clicks", "--format", "csv")
        (tmp_path / "rows.csv").write_text(first)
        code, _, error = millstream("produce", "copy", tmp_path / "rows.csv", "--create")
        assert code == 0, error
        assert millstream("consume", "copy", "--format", "csv")[1] == first

    def test_csv_has_its_header_without_rows(self, millstream: Command) -> None:
        _, out, _ = millstream("consume", "clicks", "--format", "csv", "--from", "end")
        assert out == '"time","user","n"\n'

    def test_a_table_for_a_person(self, millstream: Command) -> None:
        code, out, error = millstream("consume", "clicks", "--limit", 3, "--columns", "user,n")
        assert code == 0
        assert out.split()[:3] == ["clicks", "user", "n"]
        assert len(out.splitlines()) == 3 + 3
        assert "2024" not in out
        assert error == ""

    def test_a_table_says_that_there_may_be_more(self, millstream: Command) -> None:
        rows = b'{"n": 1}\n' * 20
        assert millstream("produce", "clicks", stdin=rows)[0] == 0
        _, out, error = millstream("consume", "clicks")
        assert len(out.splitlines()) == 3 + 20
        assert error == "the first 20 rows; more with --limit\n"

    def test_reading_starts_where_it_is_told(self, millstream: Command) -> None:
        def numbers(start: str) -> list[int]:
            _, out, _ = millstream("consume", "clicks", "--from", start, "--format", "jsonl")
            return [json.loads(line)["n"] for line in out.splitlines()]

        assert numbers("6") == [6, 7]
        assert numbers("end") == []
        assert numbers("1000") == []
        assert len(numbers("beginning")) == 8

    def test_no_rows_are_no_error(self, millstream: Command) -> None:
        assert millstream("consume", "clicks", "--from", "end") == (0, "", "no rows in 'clicks'\n")

    def test_an_unknown_column_names_the_nearest(self, millstream: Command) -> None:
        code, _, error = millstream("consume", "clicks", "--columns", "usr")
        assert code == 2
        assert "'user'" in error

    def test_nonsense_options_are_refused(self, millstream: Command) -> None:
        assert millstream("consume", "clicks", "--from", "yesterday")[0] == 2
        assert millstream("consume", "clicks", "--format", "xml")[0] == 2
        assert millstream("consume", "clicks", "--limit", "0")[0] == 2
        assert millstream("nonsense")[0] == 2


@pytest.mark.usefixtures("clicks")
class TestFollow:
    def test_new_rows_come_as_they_are_committed(self, log_directory: Path) -> None:
        command = ("consume", "clicks", "--follow", "--format", "jsonl")
        with started(log_directory, *command) as process:
            assert process.stdout is not None
            numbers = [json.loads(process.stdout.readline())["n"] for _ in range(8)]
            log = Log(log_directory)
            for number in (100, 101):
                with log.producer("clicks") as producer:
                    producer.append(pa.table({"user": ["c"], "n": pa.array([number], pa.int64())}))
                numbers.append(json.loads(process.stdout.readline())["n"])
            end = stop(process)
        assert numbers == [*range(8), 100, 101]
        assert (end.code, end.error) == (0, "")

    def test_it_stops_after_so_many(self, millstream: Command, log_directory: Path) -> None:
        def append() -> None:
            with Log(log_directory).producer("clicks") as producer:
                producer.append(pa.table({"user": ["c"] * 5, "n": pa.array(range(5), pa.int64())}))

        late = threading.Timer(0.1, append)
        late.start()
        _, out, _ = millstream("consume", "clicks", "--follow", "--limit", 10, "--format", "jsonl")
        late.join()
        assert [json.loads(line)["n"] for line in out.splitlines()] == [*range(8), 0, 1]


class TestCells:
    def test_times_of_a_column_are_written_alike(self) -> None:
        even = [TEN, None, TEN + timedelta(minutes=1)]
        assert column_texts(even) == ["2024-01-01 10:00", "", "2024-01-01 10:01"]
        assert column_texts([*even, TEN + timedelta(seconds=1)])[0] == "2024-01-01 10:00:00"

    def test_a_wide_console_has_a_table(self) -> None:
        console = Console(width=40, record=True, file=io.StringIO())
        print_rows(console, ROWS, "rows")
        lines = [line.rstrip() for line in console.export_text().splitlines()]
        assert lines[0] == "rows"
        assert lines[1].split() == ["at", "text", "n"]
        assert lines[3].split() == ["2024-01-01", "10:00", "[red]", "1"]

    def test_a_narrow_console_has_rows_one_below_the_other(self) -> None:
        console = Console(width=24, record=True, file=io.StringIO())
        print_rows(console, ROWS, "rows")
        lines = [line.rstrip() for line in console.export_text().splitlines()]
        assert lines == [
            "rows",
            "─" * 24,
            "at    2024-01-01 10:00",
            "text  [red]",
            "n     1",
            "─" * 24,
            "at    2024-01-01 11:00",
            "text",
            "n     20",
        ]


@pytest.mark.usefixtures("clicks")
class TestWhatIsRead:
    @staticmethod
    def numbers(millstream: Command, *options: object) -> list[int]:
        code, out, error = millstream("consume", "clicks", "--format", "jsonl", *options)
        assert code == 0, error
        return [json.loads(line)["n"] for line in out.splitlines()]

    def test_rows_that_fulfil_a_condition(self, millstream: Command) -> None:
        assert self.numbers(millstream, "--where", "n > 5 or user = 'b' and n < 2") == [1, 6, 7]
        assert self.numbers(millstream, "--where", "time >= '2024-01-01T11:00'") == [6, 7]
        code, _, error = millstream("consume", "clicks", "--where", "usr = 'a'")
        assert (code, "did you mean 'user'?" in error) == (2, True)
        code, _, error = millstream("consume", "clicks", "--where", "n > 'a'")
        assert (code, "column 'n' of topic 'clicks' is int64" in error) == (2, True)

    def test_rows_from_a_time_on(self, millstream: Command) -> None:
        assert self.numbers(millstream, "--from", "2024-01-01T11:00") == [6, 7]
        assert self.numbers(millstream, "--from", "2024-01-01T12:10+01:00") == [7]

    def test_what_the_log_knows_of_a_row(self, millstream: Command) -> None:
        _, out, _ = millstream(
            "consume", "clicks", "--show", "partition,offset,timestamp,headers", "--columns", "n",
            "--format", "jsonl", "--from", 7,
        )  # fmt: skip
        row = json.loads(out)
        assert row == {
            "_partition": 0,
            "_offset": 7,
            "_timestamp": "2024-01-01T11:10:00Z",
            "_headers": None,
            "n": 7,
        }
        code, _, error = millstream("consume", "clicks", "--show", "size")
        assert (code, "--show takes partition, offset" in error) == (2, True)

    def test_some_partitions(self, millstream: Command, log_directory: Path) -> None:
        topic = Log(log_directory).create_topic(
            "many", pa.schema([("n", pa.int64())]), partitions=3
        )
        with Log(log_directory).producer("many") as producer:
            for index in range(3):
                producer.append(pa.table({"n": [index]}), partition=index)
        _, out, _ = millstream("consume", topic.name, "--partition", "0,2", "--format", "csv")
        assert out.split() == ['"n"', "0", "2"]
        code, _, error = millstream("consume", "many", "--partition", "3")
        assert (code, "has partitions 0 to 2; got 3" in error) == (2, True)
        assert millstream("consume", "many", "--partition", "x")[0] == 2

    def test_an_arrow_stream_for_a_pipe(self, log_directory: Path) -> None:
        command = ("consume", "clicks", "--format", "arrow", "--where", "n >= 6")
        with started(log_directory, *command) as process:
            assert isinstance(process.stdout, io.TextIOWrapper)
            table = pa.ipc.open_stream(process.stdout.buffer.read()).read_all()
        assert table.equals(Log(log_directory).topic("clicks").to_arrow(where=("n", ">=", 6)))

    def test_what_has_no_form_in_csv(self, millstream: Command, log_directory: Path) -> None:
        Log(log_directory).create_topic("nested", pa.schema([("tags", pa.list_(pa.string()))]))
        code, _, error = millstream("consume", "nested", "--format", "csv")
        assert code == 2
        assert "column 'tags' is list<item: string>, which has no form in CSV" in error
