"""What is asked of Ray for a worker, and what is said of one that died."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

exceptions: Any = pytest.importorskip("ray.exceptions")

from millstream.runtime.hosts.ray_actors import even_share  # noqa: E402 - Ray may be missing
from millstream.runtime.hosts.ray_pool import (  # noqa: E402 - Ray may be missing
    why_dead,
    why_out_of_memory,
)

OUT_OF_MEMORY = """\
1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: \
127.0.0.1, ID: 680a35) was 1.63GB used / 23.54GB limit (0.069267)
OOM kill reason: Memory usage 1709608960B exceeded threshold of 1706053632B (6.7% of 25276502016B)
Object store memory usage: [- objects spillable: 0
- bytes spillable: 0
Top 10 memory users: PID\tMEM(GB)\tCOMMAND
730\t0.62\tray::WorkerActor.poll
Refer to the documentation on how to address the out of memory issue: https://docs.ray.io/
"""
KILLED = """\
The actor died unexpectedly before finishing this task.
\tclass_name: WorkerActor
\tactor_id: 5a3650e39135701fbf3138ab01000000
The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker \
exit detail: Worker unexpectedly exits with a connection error code 2. End of file. {} (1) the \
process was killed by the OOM killer due to high memory usage, (2) ray stop --force was called
"""


def test_want_of_memory_is_said_in_a_line_with_a_remedy() -> None:
    said = why_out_of_memory(exceptions.OutOfMemoryError(OUT_OF_MEMORY))
    assert said == (
        "out of memory: 1 worker(s) were killed due to the node running low on memory. Memory on "
        "the node (IP: 127.0.0.1, ID: 680a35) was 1.63GB used / 23.54GB limit (0.069267); run "
        "fewer workers a machine (parallelism), or give it more memory"
    )


@pytest.mark.parametrize(
    "advice", ["Some common causes include:", "There are some potential root causes."]
)
def test_a_death_is_said_without_advice_about_ray(advice: str) -> None:
    said = why_dead(exceptions.RayActorError(error_msg=KILLED.format(advice)))
    assert said == (
        "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR "
        "Worker exit detail: Worker unexpectedly exits with a connection error code 2. End of "
        "file. (it was killed, maybe by the kernel for want of memory: see dmesg; or it crashed)"
    )


def test_any_other_death_is_said_as_it_is() -> None:
    error = exceptions.RayActorError(error_msg="The actor is dead.\nits node is gone\nand more")
    assert why_dead(error) == "The actor is dead. its node is gone"


@given(
    cpus=st.lists(st.integers(1, 800).map(lambda each: each / 100), min_size=1, max_size=4),
    count=st.integers(1, 12),
)
def test_an_even_share_is_the_largest_that_fits_the_nodes(cpus: list[float], count: int) -> None:
    hundredths = [round(each * 100) for each in cpus]

    def fits(share: int) -> bool:
        return sum(each // share for each in hundredths) >= count

    largest = max((share for share in range(1, 101) if fits(share)), default=0)
    assert round(even_share(cpus, count) * 100) == largest


def test_where_there_are_no_processors_one_is_waited_for() -> None:
    assert even_share([], 2) == 1.0
    assert even_share([0], 2) == 1.0


def test_the_actors_start_before_the_engine_is_imported() -> None:
    program = (
        "import sys, millstream.runtime.hosts.ray_actors; "
        "sys.exit(int(any(each in sys.modules for each in ('millstream.log', 'pyarrow', 'numba'))))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
