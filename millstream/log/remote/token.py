"""The secret that a server of a log asks its clients for."""

from __future__ import annotations

import re

from millstream.errors import OptionError

HEADER = "authorization"
VARIABLE = "MILLSTREAM_TOKEN"

_TOKEN = re.compile(r"[!-~]{1,1024}")


def check_token(token: str | None) -> str | None:
    """Return `token`; raises `OptionError` where it cannot stand in a header."""
    if token is not None and not _TOKEN.fullmatch(token):
        # It is not shown: it may be a secret all the same.
        message = (
            "a token is 1 to 1,024 letters, digits and signs of ASCII, without blanks; the one "
            f"given has {len(token)} characters: choose another, e.g. with `openssl rand -hex 32`"
        )
        raise OptionError(message)
    return token


def header_value(token: str) -> bytes:
    """Return what stands in the header `HEADER` of who has `token`."""
    return f"Bearer {token}".encode()
