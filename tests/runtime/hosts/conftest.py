from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.runtime.hosts.ray_kit import own_network


@pytest.fixture(scope="package")
def ray_address() -> Iterator[str]:
    """A Ray of this process's own, for all tests here that need one: it takes ten seconds."""
    ray = pytest.importorskip("ray")
    from millstream.dsl.execution import ray_host

    host = ray_host()
    with own_network():
        host.connect(host.RaySettings())
        yield ray.get_runtime_context().gcs_address
        host.disconnect()
