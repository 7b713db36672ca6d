"""A process that writes to a log; tests start it and kill it.

Started as `python -m tests.log.log_process LOG TASK COUNT`. It says `ready`, waits for a line,
and says `acked N` when row N is durable. TASK: `append:FIRST` appends to topic `a` the rows
FIRST, FIRST + 1, …; `named:FIRST` does so as a producer called FIRST, and goes on where its last
life stopped; `clean` cleans again and again and says `cleaned`; `transact` commits row N
to topics `a` and `b`, and aborts every third; `undecided:FIRST` commits FIRST, FIRST + 1, … so,
and is killed between the preparation and the decision of the last one.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import Any

from millstream.log import Log
from tests.log.log_kit import rows


class Aborted(Exception):
    """Ends a transaction that is not to be."""


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def append(log: Log, first: int, count: int) -> None:
    producer = log.producer("a")
    for each in range(first, first + count):
        producer.append(rows(each))
        if each % 3 == 0:
            producer.flush()
            say(f"acked {each}")
    producer.flush()
    say(f"acked {first + count - 1}")


def append_named(log: Log, first: int, count: int) -> None:
    producer = log.producer("a", name=f"{first}")
    # The last one may be there in part, and what was not flushed be lost.
    for number in range(producer.sequence or 1, count + 1):
        producer.append(rows(first + number - 1), sequence=number)
        if number % 3 == 0:
            producer.flush()
            say(f"acked {first + number - 1}")
    producer.flush()
    say(f"acked {first + count - 1}")


def transact(log: Log, count: int) -> None:
    for each in range(count):
        with contextlib.suppress(Aborted), log.transaction("writer") as transaction:
            transaction.append("a", rows(each))
            transaction.append("b", rows(each))
            if each % 3 == 2:
                raise Aborted
        if each % 3 != 2:
            say(f"acked {each}")


def die_undecided(log: Log, first: int, count: int) -> None:
    decide = log.transactions.decide

    def decide_or_die(*arguments: Any) -> None:
        if each == first + count - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        decide(*arguments)

    log.transactions.decide = decide_or_die  # type: ignore[method-assign, assignment]
    for each in range(first, first + count):
        with log.transaction("writer") as transaction:
            transaction.append("a", rows(each))
            transaction.append("b", rows(each))
        say(f"acked {each}")


def clean(log: Log, count: int) -> None:
    for _ in range(count):
        log.clean()
        say("cleaned")


def main(path: str, task: str, count: int) -> None:
    log = Log(path)
    say("ready")
    sys.stdin.readline()
    if task.startswith("append:"):
        append(log, int(task.removeprefix("append:")), count)
    elif task.startswith("undecided:"):
        die_undecided(log, int(task.removeprefix("undecided:")), count)
    elif task.startswith("named:"):
        append_named(log, int(task.removeprefix("named:")), count)
    elif task == "clean":
        clean(log, count)
    else:
        transact(log, count)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
