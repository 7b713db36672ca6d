"""A log that only knows what topics there are: all that building a job asks of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pyarrow as pa

from millstream.log import Log, Topic

FLIGHTS = pa.schema(
    {
        "scheduled": pa.timestamp("us", "UTC"),
        "carrier": pa.string(),
        "origin": pa.string(),
        "dest": pa.string(),
        "dep_delay": pa.float64(),
        "year": pa.int64(),
    }
)
AIRLINES = pa.schema({"carrier": pa.string(), "name": pa.string(), "year": pa.int64()})


class KnownTopics(Log):
    """Nothing of it is on disk, and its topics have a configuration but no rows."""

    def __init__(self, path: str = "data", known: KnownTopics | None = None) -> None:
        super().__init__(path)
        self.path = path  # as it was given: it stands in messages
        self._known: dict[str, Topic] = {} if known is None else known._known

    def add(
        self,
        name: str,
        schema: pa.Schema,
        *,
        partitions: int = 1,
        key: tuple[str, ...] = (),
        time: str | None = None,
        table: bool = False,
    ) -> None:
        config = SimpleNamespace(
            name=name, schema=schema, partitions=partitions, key=key, time=time, table=table
        )
        self._known[name] = cast("Topic", SimpleNamespace(config=config))

    def topic_names(self) -> list[str]:
        return sorted(self._known)

    def topic(self, name: str) -> Topic:
        return self._known[name]


def flight_topics() -> KnownTopics:
    log = KnownTopics()
    log.add("flights", FLIGHTS, partitions=4, time="scheduled")
    log.add("keyed", FLIGHTS, partitions=4, key=("origin",), time="scheduled")
    log.add("untimed", FLIGHTS)
    log.add("airlines", AIRLINES, key=("carrier",), table=True)
    log.add(
        "planes",
        pa.schema({"year": pa.int64(), "dest": pa.string(), "changed": pa.timestamp("ms", "UTC")}),
        key=("year", "dest"),
        time="changed",
        table=True,
    )
    return log
