from __future__ import annotations

import pytest

from millstream.dsl.source import stream
from millstream.dsl.stream import Stream
from millstream.dsl.table import Table, table
from tests.dsl.known_topics import KnownTopics, flight_topics


@pytest.fixture
def log() -> KnownTopics:
    return flight_topics()


@pytest.fixture
def flights(log: KnownTopics) -> Stream:
    return stream("flights", lateness="24h", log=log)


@pytest.fixture
def airlines(log: KnownTopics) -> Table:
    return table("airlines", key="carrier", log=log)
