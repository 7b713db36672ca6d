"""Columns as users write them: `"price decimal(10, 2)"`, `"id int64 not null"`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from millstream.errors import OptionError

if TYPE_CHECKING:
    import pyarrow as pa

EXAMPLES = "int64, double, string, bool, date32, timestamp[us, UTC], decimal(10, 2), list<int64>"


def parse_column(text: str) -> pa.Field:
    """Return the column that `text` describes: a name, a type, perhaps `not null`.

    Raises
    ------
    OptionError
        Where it does not; shows what a column looks like.
    """
    import pyarrow as pa

    match = re.fullmatch(r"\s*(\S+)\s+(.+?)(\s+not\s+null)?\s*", text, re.IGNORECASE)
    data_type = None if match is None else _parse_type(match[2])
    if match is None or data_type is None:
        message = (
            f'{text!r} is no column; write a name and a type, e.g. "id int64 not null"; '
            f"types are {EXAMPLES} and Arrow's other names; for structs and maps name a file "
            "with --schema"
        )
        raise OptionError(message)
    return pa.field(match[1], data_type, nullable=match[3] is None)


def schema_of_file(path: Path) -> pa.Schema:
    """Return the columns of a Parquet or Arrow IPC file; raises `OptionError`."""
    import pyarrow as pa
    import pyarrow.parquet

    try:
        if path.suffix == ".parquet":
            return pyarrow.parquet.read_schema(path).remove_metadata()
        with pa.memory_map(str(path)) as file:
            content = file.read_buffer()
        opened = pa.ipc.open_file if content.slice(0, 6).to_pybytes() == b"ARROW1" else None
        return (opened or pa.ipc.open_stream)(content).schema.remove_metadata()
    except (OSError, pa.ArrowException) as error:
        message = f"cannot read columns from {path}: {error}; give a Parquet or Arrow IPC file"
        raise OptionError(message) from error


def _parse_type(text: str) -> pa.DataType | None:
    """Return the Arrow type of that name; `None`: there is none."""
    import pyarrow as pa

    text = text.strip()
    if match := re.fullmatch(r"timestamp\[(s|ms|us|ns)(?:,\s*(?:tz=)?([\w/+:-]+))?\]", text):
        return pa.timestamp(match[1], match[2])
    if match := re.fullmatch(r"(decimal(?:32|64|128|256)?)\((\d+)(?:,\s*(-?\d+))?\)", text):
        make = getattr(pa, "decimal128" if match[1] == "decimal" else match[1])
        try:
            return make(int(match[2]), int(match[3] or 0))
        except ValueError:
            return None
    if match := re.fullmatch(r"list<(.+)>", text):
        of = _parse_type(match[1])
        return None if of is None else pa.list_(of)
    try:
        return pa.type_for_alias(text)
    except ValueError:
        return None
