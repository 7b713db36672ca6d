"""How a job is seen and told from other processes: its two files and its journal."""

from __future__ import annotations

import msgspec
import pytest

from millstream.errors import OptionError
from millstream.runtime.activity import OperatorStatus, WorkerStatus
from millstream.runtime.control import (
    LOST_AFTER_US,
    JobControl,
    JobRecord,
    JobState,
    Request,
    job_names,
    known_job,
)
from millstream.runtime.journal import Journal, JournalRecord
from tests.runtime.kit import Bench


def record(bench: Bench, state: JobState = JobState.RUNNING, run: str = "mine") -> JobRecord:
    now_us = bench.clock.now_us()
    return JobRecord("hours", run, state, "local", 7, "here", 2, now_us, now_us)


def busy(worker: int, hours_us: int, days_us: int, watermark_us: int | None) -> WorkerStatus:
    def operator(busy_us: int) -> OperatorStatus:
        return OperatorStatus(0, 0, 0, 0, 0, busy_us, 0, 0)

    operators = {"hours": operator(hours_us), "days": operator(days_us)}
    holding = None if watermark_us is None else f"events/{worker}"
    return WorkerStatus(worker, watermark_us=watermark_us, holding=holding, operators=operators)


def test_what_a_host_says_is_read_elsewhere() -> None:
    bench = Bench()
    workers = (busy(0, 5, 9, 100), busy(1, 5, 0, 50), busy(2, 0, 0, None))
    said = msgspec.structs.replace(record(bench), workers=workers)
    JobControl(bench.log(), "hours").publish(said)
    found = known_job(bench.log("other"), "hours").record()
    assert found == said
    assert found.slowest_operator() == "hours"
    assert found.holding_partition() == "events/1"
    assert job_names(bench.log()) == ["hours"]
    assert record(bench).slowest_operator() is None
    assert record(bench).holding_partition() is None


def test_a_host_that_fell_silent_has_lost_its_job() -> None:
    bench = Bench()
    control = JobControl(bench.log(), "hours")
    control.publish(record(bench))
    bench.clock.sleep_us(LOST_AFTER_US)
    found = control.record()
    assert found is not None
    assert found.state is JobState.RUNNING
    bench.clock.sleep_us(1_000_000)
    found = control.record()
    assert found is not None
    assert (found.state, found.reason) == (JobState.LOST, "its host said nothing for 16 s")
    control.publish(record(bench, JobState.FINISHED))
    bench.clock.sleep_us(10 * LOST_AFTER_US)
    found = control.record()
    assert found is not None
    assert found.state is JobState.FINISHED


def test_one_run_is_asked_and_no_other() -> None:
    bench = Bench()
    control = JobControl(bench.log(), "hours")
    assert control.requested("mine") is None
    control.publish(record(bench))
    control.ask("drain", flush=False)
    assert control.requested("mine") == Request("mine", "drain", flush=False)
    assert control.requested("another") is None
    control.ask("stop", run="not begun yet")
    assert control.requested("not begun yet") == Request("not begun yet", "stop")


@pytest.mark.parametrize("state", [None, JobState.FINISHED, JobState.FAILED])
def test_a_job_that_does_not_run_cannot_be_asked(state: JobState | None) -> None:
    bench = Bench()
    control = JobControl(bench.log(), "hours")
    if state is not None:
        control.publish(record(bench, state))
    said = "it never ran" if state is None else f"it is {state.value}"
    with pytest.raises(OptionError, match=f"job 'hours' is not running: {said}"):
        control.ask("stop")


def test_an_unknown_job_is_told_from_known_ones() -> None:
    bench = Bench()
    JobControl(bench.log(), "hours").publish(record(bench))
    with pytest.raises(OptionError, match="no job 'huors' in the log '/log'; did you mean 'hours'"):
        known_job(bench.log(), "huors")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"job": 1}'])
def test_damaged_files_say_nothing(content: bytes) -> None:
    bench = Bench()
    log = bench.log()
    control = JobControl(log, "hours")
    control.publish(record(bench))
    for name in ("state", "request"):
        log.storage.write_file(f"{log.path}/jobs/hours/{name}.json", content)
    assert control.record() is None
    assert control.requested("mine") is None


def test_the_journal_keeps_what_happened_and_passes_over_what_a_crash_left() -> None:
    bench = Bench()
    log = bench.log()
    journal = Journal(log, "hours")
    assert journal.read() == []
    first = JournalRecord(1, "hours", "mine", 1, "started", "on 2 workers")
    second = JournalRecord(2, "hours", "mine", 2, "failed", "it happens", operator="window")
    journal.write(first)
    log.storage.open_append(f"{log.path}/jobs/hours/journal.jsonl").append([b'{"at_us": 3\n'])
    Journal(bench.log("other"), "hours").write(second)
    assert journal.read() == [first, second]
