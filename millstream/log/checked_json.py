"""JSON files that a flipped bit cannot change unnoticed: their last field is a checksum."""

from __future__ import annotations

import msgspec
from crc32c import crc32c

from millstream.log.frame_header import Damage

_FIELD = b',\n  "crc": '
_END = b"\n}"


def checked_json(content: bytes) -> bytes:
    """Return the JSON object `content`, which has fields, laid out for people, and `crc` last.

    It is the CRC-32C of all that stands before the comma in front of it.
    """
    body = msgspec.json.format(content, indent=2).removesuffix(_END)
    return body + _FIELD + str(crc32c(body)).encode() + _END


def try_unchecked(content: bytes) -> bytes | Damage:
    """Return the JSON object without its checksum, which holds; or why not."""
    body, field, rest = content.rpartition(_FIELD)
    if not field or not rest.endswith(_END):
        return Damage("it does not end with a checksum")
    if rest.removesuffix(_END) != str(crc32c(body)).encode():
        return Damage("its checksum does not hold")
    return body + _END
