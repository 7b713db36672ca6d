"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from millstream.errors import OptionError

if TYPE_CHECKING:
    from millstream.log import Log

LogOption = Annotated[
    Path | None,
    typer.Option(
        "--log",
        help="The log's directory; by default MILLSTREAM_LOG, else ./data.",
        file_okay=False,
        show_default=False,
    ),
]


def open_log(path: Path | None, *, create: bool = False) -> Log:
    """Return the log in `path`, or the default one.

    Raises
    ------
    OptionError
        When a path was given where nothing is, unless `create`: a mistyped path would else
        look like an empty log.
    """
    from millstream.log import Log

    if path is None:
        return Log.default()
    if not create and not path.is_dir():
        message = f"there is no log in {str(path)!r}: the directory does not exist"
        raise OptionError(message)
    return Log(path)


def names_of(text: str) -> list[str]:
    """Return the names in a comma-separated option.

    Examples
    --------
    >>> names_of("carrier, flight")
    ['carrier', 'flight']
    """
    return [name.strip() for name in text.split(",") if name.strip()]
