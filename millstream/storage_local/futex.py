"""Waiting for a word of mapped memory to change, across processes, without a busy core.

Linux does this with futexes; Python has no call for them, so they are reached through ctypes.
Where the machine has none, `wait` says so and its caller pauses instead.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import sys
import time
from collections.abc import Sequence

from millstream.storage import WORDS_MAX

_FUTEX_NUMBERS = {"x86_64": 202, "aarch64": 98, "riscv64": 98}
_WAITV_NUMBER = 449  # since Linux 5.16, on every architecture
_WAIT, _WAKE, _REQUEUE = 0, 1, 3  # not private: the waiter is in another process
_SIZE_U32 = 2
_WAKE_ALL = 2**31 - 1


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Waiter(ctypes.Structure):
    """`struct futex_waitv`."""

    _fields_ = (
        ("value", ctypes.c_uint64),
        ("address", ctypes.c_uint64),
        ("flags", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
    )


def _futex_number() -> int:
    """Return the number of the system call; 0 where there is none that we know."""
    # The low half of a word comes first in memory only on machines of this byte order.
    if sys.platform != "linux" or sys.byteorder != "little":
        return 0
    return _FUTEX_NUMBERS.get(platform.machine(), 0)


_NUMBER = _futex_number()
if _NUMBER:
    _sleeping = ctypes.CDLL(None, use_errno=True).syscall  # lets other threads run
    _waking = ctypes.PyDLL(None).syscall  # is too short for that
    _sleeping.restype = _waking.restype = ctypes.c_long
_waits_for_many = bool(_NUMBER)


def wait(words: Sequence[tuple[int, int]], timeout_s: float) -> bool | None:
    """Sleep until one of `words` is woken, or differs from its value.

    Parameters
    ----------
    words
        Address and expected value of each; the low 32 bits count.
    timeout_s
        How long at most.

    Returns
    -------
    bool or None
        `False`: the time is over. `None`: this machine cannot wait for these words.
    """
    global _waits_for_many
    if not _NUMBER:
        return None
    if len(words) == 1:
        address, value = words[0]
        timeout = _timespec(timeout_s)
        result = _sleeping(
            _NUMBER, ctypes.c_void_p(address), _WAIT, ctypes.c_uint32(value & 0xFFFFFFFF),
            ctypes.byref(timeout), None, 0,
        )  # fmt: skip
    else:
        if not _waits_for_many or len(words) > WORDS_MAX:
            return None
        waiters = (_Waiter * len(words))()
        for waiter, (address, value) in zip(waiters, words, strict=True):
            waiter.value = value & 0xFFFFFFFF
            waiter.address = address
            waiter.flags = _SIZE_U32
        until = _timespec(time.monotonic() + timeout_s)
        result = _sleeping(
            _WAITV_NUMBER, waiters, len(words), 0, ctypes.byref(until), time.CLOCK_MONOTONIC
        )
    if result >= 0:
        return True
    error = ctypes.get_errno()
    if error in {errno.ENOSYS, errno.EPERM, errno.EINVAL}:
        _waits_for_many = False
        return None
    return error != errno.ETIMEDOUT


def wake(address: int, *, one: bool = False) -> None:
    """Wake all who wait for the word at `address`, or one of them; costs about 1 µs."""
    if _NUMBER:
        _waking(_NUMBER, ctypes.c_void_p(address), _WAKE, 1 if one else _WAKE_ALL, None, None, 0)


def wake_one_of(address: int, onto: int) -> None:
    """Wake one who waits for the word at `address`; the others wait for that at `onto` now."""
    if _NUMBER:
        _waking(
            _NUMBER, ctypes.c_void_p(address), _REQUEUE, 1, ctypes.c_long(_WAKE_ALL),
            ctypes.c_void_p(onto), 0,
        )  # fmt: skip


def _timespec(seconds: float) -> _Timespec:
    whole = int(seconds)
    return _Timespec(whole, int((seconds - whole) * 1e9))
