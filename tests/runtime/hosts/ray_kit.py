"""A Ray for tests: in a network of its own, with only a loopback, where the machine allows it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

CLONE_NEWNET = 0x40000000


@contextlib.contextmanager
def own_network() -> Iterator[bool]:
    """Move this thread, and the processes it starts, into a network of its own.

    Ray binds 127.0.0.1 there. Yields `False` where the machine does not allow it; the tests
    then run in the machine's own network.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net", "rb") as before:
        if libc.unshare(CLONE_NEWNET) != 0:
            yield False
            return
        try:
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            yield True
        finally:
            if libc.setns(before.fileno(), CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "cannot go back to the machine's network")


def is_alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def end(pid: int, number: int) -> None:
    """Send a signal to a process, if it is there."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def processes_below(pid: int) -> list[int]:
    """The processes that a process started, and those that they started."""
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        children = [int(each) for each in file.read().split()]
    return children + [each for child in children for each in processes_below(child)]


def kill_with_all_below(process: subprocess.Popen[Any]) -> None:
    """Kill the process that started a node or a cluster of Ray, with all that runs there."""
    for pid in [process.pid, *processes_below(process.pid)]:
        end(pid, signal.SIGKILL)
    process.wait()


def resident_bytes(pid: int) -> int:
    """How much memory a process has."""
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def own_bytes(pid: int) -> int:
    """How much memory a process has for itself: files that it maps can be read again."""
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            _, resident, shared, *_ = map(int, file.read().split())
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE")
