"""Flipped bits and cuts of every kind of file: detected or harmless, never a wrong row or a death.

`python -m tests.log.damage_process` tries out every bit, for a night.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
EVERY = 397


def test_damage_anywhere_is_detected_or_harmless() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.log.damage_process", "--every", str(EVERY)],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout[-4_000:] + done.stderr[-2_000:]
    for kind in ("control", ".index", ".producers", ".moved", "topic.json", "bells", "epochs"):
        assert f"{kind} " in done.stdout
    assert done.stdout.count("'detected'") > 10
