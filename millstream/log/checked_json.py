"""JSON files that a flipped bit cannot change unnoticed: their last field is a checksum."""

from __future__ import annotations

from typing import TypeVar

import msgspec
from crc32c import crc32c

from millstream.log.frame_header import Damage

Kind = TypeVar("Kind")

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


def encode_checked(value: msgspec.Struct) -> bytes:
    """Return the content of a file that holds `value`, with its checksum."""
    return checked_json(msgspec.json.encode(value))


def decode_checked(content: bytes, kind: type[Kind]) -> Kind:
    """Return what a file holds; raises `msgspec.DecodeError` where it is damaged."""
    found = try_unchecked(content)
    if isinstance(found, Damage):
        raise msgspec.DecodeError(found.reason)
    return msgspec.json.decode(found, type=kind)
