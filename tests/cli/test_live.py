"""The live view: what it shows of a running job, and what it leaves when that has ended."""

from __future__ import annotations

import errno
import io
import os
import pty
import re
import subprocess
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
from numba.core import event
from rich.console import Console

from millstream.cli.live import COMPILING, LiveView
from millstream.clock import ManualClock
from millstream.log import Log
from millstream.runtime.activity import OperatorStatus, WorkerStatus
from millstream.runtime.control import JobRecord, JobState
from tests.cli.process_kit import COMMAND, environment

SECOND_US = 1_000_000
JANUARY_US = 1_704_067_200_000_000


def console(width: int = 120) -> Console:
    return Console(file=io.StringIO(), width=width)


def shown(view: LiveView) -> list[list[str]]:
    """The cells of what a view would draw now, headings first."""
    wide = Console(file=io.StringIO(), width=120, record=True)
    wide.print(view._render())
    lines = [re.split(r"\s{2,}", line.strip()) for line in wide.export_text().splitlines()]
    return [line for line in lines if not set(line[0]) <= {"─", ""}]


def status(worker: int, rows: int, **other: Any) -> WorkerStatus:
    return WorkerStatus(worker, rows, **other)


def operator(busy_us: int, keys: int = 0, state_bytes: int = 0) -> OperatorStatus:
    return OperatorStatus(0, 0, 0, 0, 0, busy_us, keys, state_bytes)


def record(*workers: WorkerStatus, **other: Any) -> JobRecord:
    given: dict[str, Any] = {"state": JobState.RUNNING, "workers": workers, **other}
    return JobRecord(
        "job", "run", host="local", pid=1, node="", parallelism=2, started_us=0, updated_us=0,
        **given,
    )  # fmt: skip


def test_a_view_shows_rows_rate_lag_time_state_and_watermark_of_each_worker() -> None:
    clock = ManualClock()
    view = LiveView("job", console=console(), clock=clock)
    assert shown(view) == [["job: starting"]]
    with view:
        view.update(record(status(0, 0), status(1, 0)))
        clock.sleep_us(2 * SECOND_US)
        workers = (
            status(
                0,
                4_000,
                lag_rows=70,
                watermark_us=JANUARY_US + 60 * SECOND_US,
                holding="flights/0",
                busy_us=1_200_000,
                backpressured_us=600_000,
                idle_us=200_000,
                operators={"filter": operator(10), "window": operator(50, 30, 2_048)},
            ),
            status(
                1,
                1_000,
                lag_rows=5,
                watermark_us=JANUARY_US,
                holding="flights/3",
                busy_us=0,
                backpressured_us=0,
                idle_us=2_000_000,
                operators={"filter": operator(30), "window": operator(0, 12, 1_024)},
            ),
        )
        done = {"checkpoint": 12, "checkpoint_us": clock.now_us(), "checkpoint_bytes": 5 * 1_024}
        view.update(record(*workers, **done))
        clock.sleep_us(3 * SECOND_US)
        headings = ["worker", "rows read", "rows/s", "lag", "busy/held/idle", "keys", "state"]
        assert shown(view) == [
            ["job"],
            [*headings, "watermark (UTC)"],
            ["0", "4,000", "2,000", "70", "60/30/10 %", "30", "2.0 KiB", "2024-01-01 00:01:00"],
            ["1", "1,000", "500", "5", "0/0/100 %", "12", "1.0 KiB", "2024-01-01 00:00:00"],
            ["all", "5,000", "2,500", "75", "30/15/55 %", "42", "3.0 KiB", "2024-01-01 00:00:00"],
            ["slowest operator: window; watermark: 2024-01-01 00:00:00, held by flights/3"],
            ["checkpoint 12: 3 s ago, 5.0 KiB of state"],
        ]


def test_on_a_narrow_terminal_nothing_is_cut() -> None:
    large = status(
        0,
        12_345_678,
        lag_rows=1_234_567,
        watermark_us=JANUARY_US,
        holding="flights/0",
        busy_us=1,
        operators={"window": operator(1, 104_321, 200_000_000)},
    )
    clock = ManualClock()
    with LiveView("job", console=console(80), clock=clock) as view:
        view.update(record(large, large))
        clock.sleep_us(2 * SECOND_US)
        view.update(record(large, large))
        narrow = console(80)
        narrow.print(view._render())
    text = cast("io.StringIO", narrow.file).getvalue()
    assert "…" not in text
    assert "24,691,356" in text
    assert "watermark: 2024-01-01 00:00:00, held by flights/0" in text


def test_what_a_job_waits_for_is_shown_beside_what_it_did() -> None:
    view = LiveView("job", console=console(), clock=ManualClock())
    with view:
        reason = "Ray is to start worker 0: each of 4 needs 1 CPU, and of 2 there are 0 free"
        view.update(record(state=JobState.STARTING, reason=reason))
        assert shown(view) == [[f"job: starting: {reason}"]]
        view.update(record(status(0, 7)))
        died = "worker 0 (process 7 on [10.0.0.1]) died: out of memory"
        view.update(record(state=JobState.RESTARTING, reason=died))
        assert shown(view)[2][:2] == ["0", "7"]
        assert shown(view)[-1] == [f"restarting: {died}"]
        view.update(record(status(0, 9)))
        assert shown(view)[-1][:2] == ["0", "9"]


def test_time_is_shared_out_over_the_last_second_and_at_the_end_over_the_whole_run() -> None:
    clock = ManualClock()
    view = LiveView("job", console=console(), clock=clock)
    with view:
        view.update(record(status(0, 0)))
        clock.sleep_us(SECOND_US)
        view.update(record(status(0, 0, busy_us=1_000_000)))
        clock.sleep_us(SECOND_US)
        view.update(record(status(0, 0, busy_us=1_000_000, idle_us=1_000_000)))
        assert shown(view)[2][4] == "0/0/100 %"
    assert shown(view)[2][4] == "50/0/50 %"


def test_the_rate_is_that_of_late_and_at_the_end_that_of_the_whole_run() -> None:
    clock = ManualClock()
    view = LiveView("job", console=console(), clock=clock)
    with view:
        for rows in (0, 1_000, 1_100):
            view.update(record(status(0, rows)))
            clock.sleep_us(SECOND_US)
        assert shown(view)[2][2] == "100"
        clock.sleep_us(SECOND_US)
    assert shown(view)[2][2] == "275"


def test_a_second_run_of_a_script_has_rates_of_its_own() -> None:
    clock = ManualClock()
    view = LiveView("job", console=console(), clock=clock)
    with view:
        view.update(record(status(0, 0)))
        clock.sleep_us(SECOND_US)
        view.update(record(status(0, 1_000)))
        clock.sleep_us(9 * SECOND_US)
        view.update(record(status(0, 0)))
        clock.sleep_us(SECOND_US)
        view.update(record(status(0, 500)))
        assert shown(view)[2][1:3] == ["500", "500"]


def test_a_view_says_that_kernels_are_compiled() -> None:
    with LiveView("job", console=console(), clock=ManualClock()) as view:
        view.update(record(status(0, 0)))
        assert [COMPILING] not in shown(view)
        with event.trigger_event("numba:compile"):
            assert shown(view)[-1] == [COMPILING]
        assert [COMPILING] not in shown(view)
    with event.trigger_event("numba:compile"):
        assert [COMPILING] not in shown(view)


def test_what_is_no_terminal_gets_the_last_state_only() -> None:
    for rows, ending in ((10, None), (0, None), (10, ValueError), (0, ValueError)):
        where = io.StringIO()
        try:
            with LiveView("job", console=Console(file=where, width=80)) as view:
                view.update(record(status(0, 0)))
                view.update(record(status(0, rows)))
                if ending is not None:
                    raise ending
        except ValueError:
            pass
        lines = where.getvalue().splitlines()
        # A run that failed before its first row has nothing to show.
        assert len(lines) == (0 if ending and not rows else 4)
        assert where.getvalue().endswith("\n") or not lines


def test_a_terminal_is_redrawn_while_the_job_runs(tmp_path: Path) -> None:
    log = Log(tmp_path / "log")
    log.create_topic("clicks", pa.schema({"n": pa.int64()}))
    script = tmp_path / "job.py"
    script.write_text(
        "import millstream as ms\n"
        'ms.run(ms.stream("clicks").to("copy"), checkpoint_interval="50ms")\n'
    )
    mine, its = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, "run", str(script)], stdin=its, stdout=its, stderr=its,
        env=environment(Path(log.path)) | {"TERM": "xterm-256color"}, start_new_session=True,
    ) as process:  # fmt: skip
        os.close(its)
        screen = Screen(mine)
        screen.wait_for(r"rows read")
        total = 0
        for count in (3, 40):
            with log.producer("clicks") as producer:
                producer.append(pa.table({"n": pa.array(range(count), pa.int64())}))
            total += count
            screen.wait_for(rf"\b0 +{total} ")
        process.terminate()
        screen.wait_for(r"stopped after a last checkpoint")
    os.close(mine)
    assert process.returncode == 0


class Screen:
    """What was drawn on a terminal since the last time that something was found there."""

    def __init__(self, terminal: int) -> None:
        self._terminal = terminal
        self._drawn = ""

    def wait_for(self, pattern: str) -> None:
        while (found := re.search(pattern, self._drawn)) is None:
            try:
                read = os.read(self._terminal, 65_536).decode()
            except OSError as error:
                assert error.errno == errno.EIO
                raise AssertionError(self._drawn) from error  # the other end is closed
            self._drawn += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", read)
        self._drawn = self._drawn[found.end() :]
