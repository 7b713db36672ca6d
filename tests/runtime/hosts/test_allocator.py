"""Memory that was freed is used again without the system."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

ROUNDS, BLOCKS, BLOCK_BYTES, PAGE_BYTES = 20, 8, 1024 * 1024, 4096
PROGRAM = f"""
import resource
from millstream.runtime.hosts.allocator import keep_freed_memory
assert {{keeps}} is False or keep_freed_memory()
def blocks():
    return [bytearray({BLOCK_BYTES}) for _ in range({BLOCKS})]
blocks()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({ROUNDS}):
    blocks()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(keeps: bool) -> int:
    program = [sys.executable, "-c", PROGRAM.format(keeps=keeps)]
    return int(subprocess.run(program, capture_output=True, check=True, text=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="these are settings of glibc")
def test_blocks_of_a_batch_are_made_once() -> None:
    all_pages = ROUNDS * BLOCKS * BLOCK_BYTES // PAGE_BYTES
    assert page_faults(keeps=True) < all_pages // 4 < page_faults(keeps=False)
