"""A log that only knows what topics there are: all that building a job asks of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

import pyarrow as pa

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


@dataclass(frozen=True)
class KnownTopics:
    path: str = "data"
    configs: dict[str, SimpleNamespace] = field(default_factory=dict)

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
        self.configs[name] = SimpleNamespace(
            name=name, schema=schema, partitions=partitions, key=key, time=time, table=table
        )

    def topic_names(self) -> list[str]:
        return sorted(self.configs)

    def topic(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(config=self.configs[name])


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
