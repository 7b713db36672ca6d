"""A process with a member of a group; tests start it, stop it and kill it.

Started as `python -m tests.log.groups.member_process LOG OWNER TIMEOUT_MS [MEMBER]`. It copies
topic `x` to topic `out`, rows and offsets in transactions of OWNER, until its input ends, and says
`owns 0,1` when its partitions change, `fenced` when it was not allowed to commit.
"""

from __future__ import annotations

import select
import sys

from millstream.errors import FencedError, TransactionError
from millstream.log import Log


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main(path: str, owner: str, timeout_ms: int, member: str | None) -> None:
    log = Log(path)
    consumer = log.consumer(
        "x", group="g", member=member, auto_commit=False, session_timeout_ms=timeout_ms
    )
    owned: list[int] = []
    while not select.select([sys.stdin], [], [], 0)[0]:
        batch = consumer.poll(timeout_us=20_000, rows_max=2)
        now = [place.partition for place in consumer.partitions]
        if now != owned:
            owned = now
            say(f"owns {','.join(map(str, owned))}")
        if batch is None:
            continue
        try:
            with log.transaction(owner) as transaction:
                transaction.append("out", batch)
                transaction.commit_offsets(consumer)
        except (FencedError, TransactionError):
            say("fenced")
            consumer.rewind()
    consumer.close()
    say("closed")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4] if len(sys.argv) > 4 else None)
