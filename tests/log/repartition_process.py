"""A process that appends to the topic `t` by key; `test_repartition_processes.py` starts it.

Started as `python -m tests.log.repartition_process FOLDER FIRST COUNT`. It appends COUNT batches of
rows whose ids rise from FIRST on, flushes now and then, and says `acked ID` then.
"""

from __future__ import annotations

import sys

import pyarrow as pa

from millstream.log import Log

SCHEMA = pa.schema([("key", pa.int64()), ("id", pa.int64())])
BATCH_ROWS = 50
KEYS = 20
"""Of each process; its own, so that their rows have an order."""


def main(folder: str, first: int, count: int) -> None:
    producer = Log(folder).producer("t")
    for number in range(count):
        start = first + number * BATCH_ROWS
        ids = list(range(start, start + BATCH_ROWS))
        keys = [first + each % KEYS for each in ids]
        producer.append(pa.table({"key": keys, "id": ids}, schema=SCHEMA))
        if number % 5 == 4:
            producer.flush()
            sys.stdout.write(f"acked {ids[-1]}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
