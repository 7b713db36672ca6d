"""Every flipped bit and every cut of a small file of each kind: detected, or without effect."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
KINDS = {
    "log.json": 1, "topic.json": 1, "erasing.json": 1, "state.json": 1, "mirror.json": 1,
    ".moved": 1, "00000001.json": 1, ".index": 1, ".producers": 1, ".arrows": 5,
}  # fmt: skip
"""How many files of each there are: segments of rows, compacted, moved, of decisions, of offsets;
and the manifest of a backup."""


def test_every_flip_and_every_cut() -> None:
    """In a process of its own: damaged Arrow metadata would kill it."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.log.flip_process"],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout[-4_000:] + done.stderr[-2_000:]
    lines = done.stdout.splitlines()
    for kind, count in KINDS.items():
        found = [line for line in lines if line.partition(" ")[0].endswith(kind)]
        assert len(found) == count, kind
        # Nothing that is read alone has a bit that does not count.
        assert all("{'detected': " in line and "harmless" not in line for line in found), found
