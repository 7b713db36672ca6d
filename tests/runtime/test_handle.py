"""A handle on a run that goes on elsewhere."""

from __future__ import annotations

from typing import Literal

import msgspec
import pytest

from millstream.errors import JobError, OptionError
from millstream.runtime.activity import WorkerStatus
from millstream.runtime.control import LOST_AFTER_US, JobControl, JobRecord, JobState, Request
from millstream.runtime.handle import Ended, JobHandle
from millstream.runtime.result import RunResult, run_result
from tests.runtime.kit import Bench


def record(
    bench: Bench, state: JobState, run: str = "mine", reason: str | None = None
) -> JobRecord:
    now_us = bench.clock.now_us()
    workers = (WorkerStatus(0, rows_read=3),)
    return JobRecord(
        "hours", run, state, "ray", 7, "here", 2, now_us, now_us, reason=reason, workers=workers
    )


def handle(bench: Bench, ended: Ended | None = None) -> JobHandle:
    return JobHandle(bench.log("handle"), "hours", "mine", "ray", 2, ended)


def publish(bench: Bench, said: JobRecord) -> JobControl:
    control = JobControl(bench.log("host"), "hours")
    control.publish(said)
    return control


RESULT = run_result([], checkpoints=2, restored=None, finished=True)


class TestStatus:
    def test_a_run_that_has_said_nothing_yet_is_starting(self) -> None:
        status = handle(Bench()).status()
        assert (status.job, status.run, status.state) == ("hours", "mine", JobState.STARTING)
        assert (status.host, status.parallelism, status.workers) == ("ray", 2, ())

    def test_what_another_run_says_is_not_its_own(self) -> None:
        bench = Bench()
        publish(bench, record(bench, JobState.FINISHED, run="another"))
        assert handle(bench).status().state is JobState.STARTING

    def test_what_the_run_says(self) -> None:
        bench = Bench()
        said = record(bench, JobState.RUNNING)
        publish(bench, said)
        assert handle(bench).status() == said
        assert repr(handle(bench)) == "job 'hours': running"

    def test_metrics_are_plain_data(self) -> None:
        bench = Bench()
        publish(bench, record(bench, JobState.RUNNING))
        metrics = handle(bench).metrics()
        assert metrics["state"] == "running"
        assert msgspec.json.decode(msgspec.json.encode(metrics)) == metrics


class TestAsking:
    @pytest.mark.parametrize("action", ["stop", "drain", "cancel"])
    def test_the_run_is_asked(self, action: Literal["stop", "drain", "cancel"]) -> None:
        bench = Bench()
        control = publish(bench, record(bench, JobState.RUNNING))
        getattr(handle(bench), action)()
        assert control.requested("mine") == Request("mine", action)

    def test_windows_may_be_kept_open(self) -> None:
        bench = Bench()
        control = publish(bench, record(bench, JobState.RUNNING))
        handle(bench).drain(flush=False)
        assert control.requested("mine") == Request("mine", "drain", flush=False)

    def test_a_run_that_has_said_nothing_yet_can_be_asked(self) -> None:
        bench = Bench()
        handle(bench).stop()
        assert JobControl(bench.log(), "hours").requested("mine") == Request("mine", "stop")

    def test_a_run_that_is_over_cannot(self) -> None:
        bench = Bench()
        publish(bench, record(bench, JobState.STOPPED))
        with pytest.raises(OptionError, match="job 'hours' is not running: it is stopped"):
            handle(bench).stop()


class TestWaiting:
    def test_the_result_comes_from_the_run_itself(self) -> None:
        bench, asked = Bench(), iter([None, None, RESULT])
        assert handle(bench, lambda: next(asked)).wait() is RESULT

    def test_no_longer_than_was_said(self) -> None:
        bench = Bench()
        before_us = bench.clock.monotonic_us()
        assert handle(bench, lambda: None).wait(0.2) is None
        assert bench.clock.monotonic_us() - before_us == 200_000
        assert handle(bench, lambda: None).wait(0) is None

    def test_why_it_failed_is_raised(self) -> None:
        def ended() -> RunResult | None:
            message = "worker 1 died"
            raise JobError(message)

        with pytest.raises(JobError, match="worker 1 died"):
            handle(Bench(), ended).wait()

    @pytest.mark.parametrize("state", [JobState.FINISHED, JobState.STOPPED])
    def test_from_elsewhere_it_ends_without_a_result(self, state: JobState) -> None:
        bench = Bench()
        publish(bench, record(bench, state))
        assert handle(bench).wait() is None

    @pytest.mark.parametrize("state", [JobState.FAILED, JobState.CANCELLED])
    def test_from_elsewhere_a_failure_is_raised_too(self, state: JobState) -> None:
        bench = Bench()
        publish(bench, record(bench, state, reason="worker 1 died"))
        with pytest.raises(JobError, match=f"job 'hours' is {state.value}: worker 1 died"):
            handle(bench).wait()

    def test_from_elsewhere_a_lost_host_is_noticed(self) -> None:
        bench = Bench()
        publish(bench, record(bench, JobState.RUNNING))
        before_us = bench.clock.monotonic_us()
        with pytest.raises(JobError, match="job 'hours' is lost: its host said nothing for 15 s"):
            handle(bench).wait()
        assert bench.clock.monotonic_us() - before_us >= LOST_AFTER_US
