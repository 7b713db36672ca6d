"""Dictionaries lose what no row has; what is erased or compacted away does not stay in them."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
from hypothesis import given, settings

from millstream.log import Log
from millstream.log.dictionaries import without_unused_values
from tests.log.test_encoding import batches

WORD = pa.dictionary(pa.int8(), pa.string())
SCHEMA = pa.schema(
    [
        pa.field("key", WORD),
        pa.field("tags", pa.list_(WORD)),
        pa.field("place", pa.struct([("city", WORD), ("codes", pa.map_(pa.string(), WORD))])),
    ]
)


def people(*names: str) -> pa.RecordBatch:
    columns = [
        pa.array(names, WORD),
        pa.array([[f"tag of {each}", "common"] for each in names], SCHEMA[1].type),
        pa.array(
            [{"city": f"city of {each}", "codes": [("code", f"of {each}")]} for each in names],
            SCHEMA[2].type,
        ),
    ]
    return pa.record_batch(columns, schema=SCHEMA)


def stored(log: Log) -> bytes:
    return b"".join(path.read_bytes() for path in Path(log.path).rglob("*.arrows"))


@settings(max_examples=80)
@given(batches())
def test_the_rows_stay_the_same(batch: pa.RecordBatch) -> None:
    found = without_unused_values(batch)
    found.validate(full=True)
    assert found.schema == batch.schema
    assert found.to_pylist() == batch.to_pylist()


def test_what_no_row_has_is_gone() -> None:
    rows = without_unused_values(people("anna", "berta", "carl").slice(1, 1))
    assert b"anna" not in rows.serialize().to_pybytes()
    assert rows["key"].dictionary.to_pylist() == ["berta"]
    assert rows["tags"].values.dictionary.to_pylist() == ["common", "tag of berta"]
    codes = rows["place"].field("codes")
    assert rows["place"].field("city").dictionary.to_pylist() == ["city of berta"]
    assert codes.items.dictionary.to_pylist() == ["of berta"]


def test_erased_keys_are_in_no_dictionary(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.create_topic("people", SCHEMA, key=["key"], config={"segment.bytes": 3_000})
    with log.producer("people") as producer:
        for _ in range(4):
            producer.append(people("anna", "berta", "carl"))
    assert b"berta" in stored(log)
    log.erase("people", pa.table({"key": ["berta"]}))
    assert b"berta" not in stored(log)
    rows = 4 * [row for row in people("anna", "carl").to_pylist()]
    assert log.topic("people").to_arrow().to_pylist() == rows


def test_a_compaction_takes_more_values_than_there_are_indices(tmp_path: Path) -> None:
    log = Log(tmp_path)
    config = {"segment.bytes": 20_000, "min.cleanable.dirty.ratio": 0}
    log.create_topic("people", SCHEMA, key=["key"], table=True, config=config)
    names = [[f"{start + index}" for index in range(60)] for start in range(0, 300, 60)]
    with log.producer("people") as producer:
        for each in (*names, *names, names[0]):
            producer.append(people(*each))
    log.clean("people")
    rows = log.topic("people").to_arrow(["key", "_offset"])
    assert rows.num_rows < 11 * 60
    assert rows["key"].to_pylist()[-60:] == names[0]
    latest = log.topic("people").latest()
    assert sorted(map(int, latest["key"].to_pylist())) == list(range(300))
