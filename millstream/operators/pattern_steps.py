"""What a pattern's steps are: said by `plain_patterns`, obeyed by the loops of `kernels.texts`.

They lie apart because a job is planned without Numba.
"""

from __future__ import annotations

LITERAL, CLASS, TEXT_END, GROUP_BEGIN, GROUP_END = range(5)
"""Kinds of steps."""

ANY_BYTE = 256
"""In place of the byte with which every match begins, where there is none."""
