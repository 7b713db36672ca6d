"""How many examples hypothesis makes: few in the suite, twenty times as many by night."""

from __future__ import annotations

import os


def examples(count: int) -> int:
    """Return so many, or twenty times as many where MILLSTREAM_LONG is set."""
    return count * (20 if os.environ.get("MILLSTREAM_LONG") else 1)
