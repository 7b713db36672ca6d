"""Runs a command in a process whose memory the kernel limits, page cache included where it can."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

# Where a group of processes with a limit can be made: the folder, and the file of its limit.
_GROUPS = (
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
    (Path("/sys/fs/cgroup"), "memory.max"),
)


def run_limited(command: Sequence[str], limit_bytes: int | None, cwd: Path) -> str:
    """Return what a command prints, run with at most `limit_bytes` of memory (`None`: all)."""
    with _entering(limit_bytes) as enter:
        done = subprocess.run(
            command, check=True, cwd=cwd, stdout=subprocess.PIPE, text=True, preexec_fn=enter
        )
    return done.stdout


@contextmanager
def _entering(limit_bytes: int | None) -> Iterator[Callable[[], None]]:
    """Give what a new process calls to be limited."""
    if limit_bytes is None:
        yield lambda: None
        return
    for parent, limit in _GROUPS:
        group = parent / f"millstream-benchmark-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            (group / limit).write_text(str(limit_bytes))
            members = str(group / "cgroup.procs")
            yield partial(_join, members)
        finally:
            group.rmdir()
        return
    # Without such groups the process's own memory is limited, but not what is cached for it.
    yield lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, limit_bytes))


def _join(members: str) -> None:
    with open(members, "w", encoding="ascii") as file:
        file.write(str(os.getpid()))
