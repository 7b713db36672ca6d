"""`send(row)` of dicts, on one core: rows a second until they are in a topic of durability `os`.

Beside: making the dicts' columns with pyarrow alone (`pa.RecordBatch.from_pylist`), in batches of
as many rows.
"""

from __future__ import annotations

import random

import pyarrow as pa

import millstream as ms
from benchmarks.harness import Figure, Figures, compared, scratch_directory, seconds_of

SCHEMA = pa.schema(
    [("user", pa.int64()), ("page", pa.string()), ("price", pa.float64()), ("count", pa.int32())]
)
BATCH_ROWS = 8_192


def run(quick: bool) -> Figures:
    """Measure sending with and without a key."""
    count = 50_000 if quick else 600_000
    random.seed(1)
    pages = [f"/products/{index}" for index in range(1_000)]
    rows = [
        {
            "user": random.randrange(10_000),
            "page": random.choice(pages),
            "price": random.random(),
            "count": index % 7,
        }
        for index in range(count)
    ]
    runs = iter(range(100))
    with scratch_directory() as directory:

        def send(*, keyed: bool) -> None:
            log = ms.Log(directory / str(next(runs)))
            log.create_topic(
                "events",
                SCHEMA,
                partitions=4 if keyed else 1,
                key=["user"] if keyed else [],
                durability="os",
            )
            with log.producer("events", batch_rows=BATCH_ROWS) as producer:
                for row in rows:
                    producer.send(row)

        def convert() -> None:
            for begin in range(0, count, BATCH_ROWS):
                pa.RecordBatch.from_pylist(rows[begin : begin + BATCH_ROWS], schema=SCHEMA)

        plain = count / seconds_of(lambda: send(keyed=False))
        keyed = count / seconds_of(lambda: send(keyed=True))
        alone = count / seconds_of(convert)
    return {
        "rows": Figure(plain, "rows/s", goal=300_000),
        "rows_keyed": Figure(keyed, "rows/s", goal=300_000),
        "rows_beside_pylist": compared(plain, "rows/s", "from_pylist alone", alone),
    }
