"""What a job asks of Ray, as `run`, `submit` and the command line hand it to the host."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import timedelta
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import millstream as ms
from millstream.dsl.run_context import RunOverrides, override_run
from millstream.dsl.stream import Stream
from millstream.errors import OptionError


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """With what settings jobs came to the Ray host, for which the test stands in."""
    settings: list[dict[str, Any]] = []

    def note(*arguments: Any) -> SimpleNamespace:
        settings.append(next(each for each in arguments if isinstance(each, dict)))
        return SimpleNamespace(counters={}, tables={})

    module: Any = ModuleType("millstream.runtime.hosts.ray")
    module.RaySettings, module.run_job, module.submit_job = dict, note, note
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return settings


def test_by_default_a_worker_asks_for_a_share_and_waits_a_minute(
    asked: list[dict[str, Any]], flights: Stream
) -> None:
    ms.run(flights.to("copy"), on="ray")
    assert asked == [{"detach": False, "worker_cpus": None, "start_timeout_s": 60.0}]


def test_a_job_that_does_not_say_where_it_runs_comes_to_ray_where_an_address_is_set(
    asked: list[dict[str, Any]], flights: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    ms.run(flights.to("copy"))
    ms.submit(flights.to("copy"), detach=True)
    assert [each["detach"] for each in asked] == [False, True]


def test_run_and_submit_take_what_is_asked_of_ray(
    asked: list[dict[str, Any]], flights: Stream
) -> None:
    sink = flights.to("copy")
    ms.run(sink, on="ray", worker_cpus=0.5, start_timeout="5m")
    ms.submit(sink, on="ray", worker_cpus=0, start_timeout=timedelta(milliseconds=1), detach=True)
    assert asked == [
        {"detach": False, "worker_cpus": 0.5, "start_timeout_s": 300.0},
        {"detach": True, "worker_cpus": 0.0, "start_timeout_s": 0.001},
    ]


def test_what_is_given_from_outside_wins(asked: list[dict[str, Any]], flights: Stream) -> None:
    with override_run(RunOverrides(on="ray", worker_cpus=2.0, start_timeout_us=3_000_000)):
        ms.run(flights.to("copy"), worker_cpus=0.5, start_timeout="5m")
    with override_run(RunOverrides(on="ray", worker_cpus=2.0)):
        ms.run(flights.to("copy"), start_timeout="5m")
    assert [(each["worker_cpus"], each["start_timeout_s"]) for each in asked] == [
        (2.0, 3.0),
        (2.0, 300.0),
    ]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"worker_cpus": -1}, "worker_cpus is a number of processors, 0 or more, e.g. 0.5; got -1"),
        ({"worker_cpus": float("nan")}, "got nan"),
        ({"worker_cpus": float("inf")}, "got inf"),
        ({"worker_cpus": 0.00001}, "got 1e-05"),
        ({"worker_cpus": "2"}, "got '2'"),
        ({"worker_cpus": True}, "got True"),
        ({"start_timeout": "soon"}, "start_timeout='soon' is no duration"),
        ({"start_timeout": "0s"}, "start_timeout must be more than 0; got '0s'"),
        ({"start_timeout": timedelta(seconds=-1)}, "is negative"),
    ],
)
@pytest.mark.parametrize("on", ["local", "ray"])
def test_mistakes_are_said_at_the_users_line_wherever_the_job_runs(
    asked: list[dict[str, Any]], flights: Stream, on: Any, options: dict[str, Any], text: str
) -> None:
    call: Callable[..., object]
    for call in (ms.run, ms.submit):
        with pytest.raises(OptionError) as raised:
            call(flights.to("copy"), on=on, **options)
        assert str(raised.value).startswith(f"{__file__}:")
        assert text in str(raised.value)
    assert asked == []


@pytest.mark.parametrize(
    "overrides", [RunOverrides(worker_cpus=2.0), RunOverrides(start_timeout_us=1)]
)
def test_from_outside_it_is_for_ray_only(
    asked: list[dict[str, Any]], flights: Stream, overrides: RunOverrides
) -> None:
    with override_run(overrides), pytest.raises(OptionError, match="give --on ray too"):
        ms.run(flights.to("copy"))
    assert asked == []
