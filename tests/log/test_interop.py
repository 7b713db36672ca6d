"""Other tools read a topic as their own, ask only for what they need, and see committed rows."""

from __future__ import annotations

import importlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pandas
import polars
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
import pytest

from millstream.errors import MissingExtraError, OptionError, UnknownColumnError
from millstream.log import Log, Topic
from millstream.log.segment import segment_file_name

TEN = datetime(2024, 1, 1, 10, tzinfo=UTC)
SCHEMA = pa.schema(
    [
        ("at", pa.timestamp("us", "UTC")),
        ("carrier", pa.string()),
        ("delay", pa.float64()),
        ("tags", pa.list_(pa.string())),
    ]
)


def flights(first: int, count: int) -> pa.RecordBatch:
    numbers = range(first, first + count)
    return pa.record_batch(
        [
            pa.array([TEN + timedelta(minutes=i) for i in numbers], SCHEMA.types[0]),
            pa.array([("AA", "UA", None)[i % 3] for i in numbers]),
            pa.array([float(i) for i in numbers]),
            pa.array([[str(i)] for i in numbers]),
        ],
        schema=SCHEMA,
    )


@pytest.fixture
def log(tmp_path: Path) -> Log:
    log = Log(tmp_path / "log")
    log.create_topic("flights", SCHEMA, partitions=2, time="at", config={"segment.bytes": 9_000})
    with log.producer("flights") as producer:
        for first in range(0, 600, 100):
            producer.append(flights(first, 100), partition=first // 300)
    with log.transaction("undone") as transaction:
        transaction.append("flights", flights(1_000, 10))
        transaction.abort()
    return log


@pytest.fixture
def topic(log: Log) -> Topic:
    return log.topic("flights")


def delays(table: pa.Table) -> list[float]:
    found: list[float] = table.column("delay").to_pylist()
    return found


class TestArrow:
    def test_a_table(self, topic: Topic) -> None:
        table = topic.to_arrow()
        assert table.schema == SCHEMA
        assert delays(table) == [float(i) for i in range(600)]
        assert topic.to_arrow(["delay"], partitions=[1]).num_rows == 300

    def test_any_arrow_library_takes_the_topic_itself(self, topic: Topic) -> None:
        assert pa.table(topic).equals(topic.to_arrow())
        assert polars.DataFrame(topic).height == 600

    def test_a_stream_is_read_as_it_goes(self, topic: Topic) -> None:
        reader = topic.to_reader(["delay"], where=("carrier", "is", None))
        assert reader.schema.names == ["delay"]
        assert delays(reader.read_all()) == [float(i) for i in range(2, 600, 3)]

    def test_offsets(self, topic: Topic) -> None:
        expected = [*range(290, 300), *range(590, 600)]
        assert delays(topic.to_arrow(start=290)) == expected
        assert delays(topic.to_arrow(start=290, end=292)) == [290, 291, 590, 591]
        assert delays(topic.to_arrow(start=5_000)) == []

    def test_times(self, topic: Topic) -> None:
        start, end = TEN + timedelta(minutes=295), TEN + timedelta(minutes=303)
        assert delays(topic.to_arrow(start=start, end=end)) == list(range(295, 303))
        found = topic.to_arrow(start=start, end=end, where=pc.field("delay") * 2 > 600)
        assert delays(found) == [301, 302]
        with pytest.raises(OptionError, match="a time needs a zone"):
            topic.to_arrow(start=datetime(2024, 1, 1))  # noqa: DTZ001  # that is the mistake

    def test_times_of_appends(self, tmp_path: Path) -> None:
        log = Log(tmp_path / "log")
        topic = log.create_topic("x", pa.schema([("n", pa.int64())]))
        with log.producer("x") as producer:
            producer.append(pa.record_batch({"n": [1]}))
        later = datetime.now(UTC) + timedelta(days=1)
        assert topic.to_arrow(start=later - timedelta(days=2), end=later).num_rows == 1
        assert topic.to_arrow(start=later).num_rows == topic.to_arrow(end=TEN).num_rows == 0

    def test_unknown_columns(self, topic: Topic) -> None:
        with pytest.raises(UnknownColumnError, match="did you mean 'delay'"):
            topic.to_reader(["dealy"])


class TestFrames:
    def test_pandas(self, topic: Topic) -> None:
        frame = topic.to_pandas(["delay"], where=("delay", ">=", 598))
        assert isinstance(frame, pandas.DataFrame)
        assert frame["delay"].tolist() == [598.0, 599.0]

    def test_polars(self, topic: Topic) -> None:
        frame = topic.to_polars(where=("delay", ">=", 598))
        assert isinstance(frame, polars.DataFrame)
        assert frame["delay"].to_list() == [598.0, 599.0]

    @pytest.mark.parametrize("name", ["pandas", "polars", "duckdb"])
    def test_a_library_that_is_missing(
        self, log: Log, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(_: str) -> None:
            raise ImportError

        monkeypatch.setattr(importlib, "import_module", refuse)
        with pytest.raises(MissingExtraError, match=rf"install 'millstream\[{name}\]'"):
            log.duckdb() if name == "duckdb" else getattr(log.topic("flights"), f"to_{name}")()


class TestDuckDB:
    def test_a_topic_is_a_table(self, log: Log) -> None:
        connection = log.duckdb()
        query = """
            select carrier, count(*), max(delay) from flights
            where delay < 100 and carrier in ('AA', 'UA') group by all order by all
        """
        assert connection.sql(query).fetchall() == [("AA", 34, 99.0), ("UA", 33, 97.0)]
        assert connection.sql("select count(*) from flights").fetchall() == [(600,)]

    def test_it_sees_what_comes_later(self, log: Log) -> None:
        connection = log.duckdb(duckdb.connect())
        with log.producer("flights") as producer:
            producer.append(flights(2_000, 1))
        query = """select delay from flights where "at" > '2024-01-02 00:00Z'::timestamptz"""
        assert connection.sql(query).fetchall() == [(2_000.0,)]

    def test_several_scans_run_at_once(self, log: Log) -> None:
        query = """
            select count(*) from flights a join flights b on a.delay = b.delay + 1
            where a.carrier = 'AA' and b.carrier is null
        """
        assert log.duckdb().sql(query).fetchall() == [(199,)]

    def test_what_it_does_not_ask_for_is_not_touched(self, log: Log, topic: Topic) -> None:
        partition = topic.partition(0)
        bases = [base for base, _ in partition.segments()]
        assert len(bases) > 1
        path = Path(partition.directory) / segment_file_name(bases[0])
        content = bytearray(path.read_bytes())
        content[-40] ^= 1  # in the last column of the last frame
        path.write_bytes(content)
        connection = log.duckdb()
        assert connection.sql("select sum(delay) from flights").fetchall() == [(179_700.0,)]
        late = TEN + timedelta(minutes=598)
        query = f"""select tags from flights where "at" > '{late}'::timestamptz"""
        assert connection.sql(query).fetchall() == [(["599"],)]
        with pytest.raises(duckdb.Error, match=r"partition flights/0 is damaged"):
            connection.sql("select tags from flights").fetchall()


class TestDatasets:
    def test_pyarrow(self, topic: Topic) -> None:
        dataset = topic.to_dataset()
        table = dataset.to_table(columns=["delay"], filter=pc.field("carrier") == "AA")
        assert delays(table)[:2] == [0.0, 3.0]
        assert dataset.count_rows() == 600
        assert dataset.head(2).num_rows == 2

    def test_polars_pushes_into_it(self, topic: Topic) -> None:
        lazy = polars.scan_pyarrow_dataset(topic.to_dataset())
        frame = lazy.filter(polars.col("delay") > 597).select("carrier").collect()
        assert frame["carrier"].to_list() == ["UA", None]

    def test_columns_are_not_computed(self, topic: Topic) -> None:
        with pytest.raises(OptionError, match="read by the names of its columns"):
            topic.to_dataset().to_table(columns={"twice": pc.field("delay") * 2})


def test_a_notebook_shows_what_a_topic_is(topic: Topic) -> None:
    html = topic._repr_html_()
    assert "<b>flights</b>, a stream: 2 partitions" in html
    assert "<th>carrier<br><small>string</small></th>" in html
    assert html.count("<tr>") == 6
