"""Testing jobs: rows in, event time moved by hand, rows out; on one thread, without waiting.

The job is the one that runs in production: the same plan, operators, log, transactions and
checkpoints, over a disk in memory and a clock that stands still until it is moved.

    harness = ms.testing.Harness(flights=ms.testing.Topic(FLIGHTS, time="scheduled"))
    harness.start(build)                                    # what `ms.run` would be given
    harness.send("flights", [{"scheduled": "2013-01-01 10:05", "origin": "JFK", "delay": 20}])
    harness.advance("2013-01-01 11:00")
    assert harness.rows("hours") == [...]
"""

from __future__ import annotations

from millstream.testing.harness import Harness, Topic

__all__ = ["Harness", "Topic"]
