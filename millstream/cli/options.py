"""Options that several commands share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from millstream.errors import OptionError

if TYPE_CHECKING:
    from millstream.log import Log

LogOption = Annotated[
    str | None,
    typer.Option(
        "--log",
        help="The log's directory or address (grpc://host:port); by default MILLSTREAM_LOG, "
        "else ./data.",
        metavar="LOG",
        show_default=False,
    ),
]


def open_log(path: str | None, *, create: bool = False) -> Log:
    """Return the log in or at `path`, or the default one.

    Raises
    ------
    OptionError
        When nothing is there, unless `create`: a mistyped path would else look like an empty
        log.
    """
    from millstream.dsl.topics import copy_hint
    from millstream.log import Log
    from millstream.log.remote.address import is_address

    log = Log.default() if path is None else Log(path)
    if is_address(log.path):
        log.topic_names()  # a server that is not there is found out now
        return log
    if Path(log.path).is_file():
        message = f"{log.path!r} is a file; a log is a directory"
        raise OptionError(message)
    if not create and not Path(log.path).is_dir():
        message = f"there is no log in {log.path!r}: the directory does not exist"
        if path is None:
            message += "; name another one with --log DIR or MILLSTREAM_LOG"
        message += copy_hint()
        raise OptionError(message)
    return log


def absolute_place(place: str) -> str:
    """Return a URI as it is, and a folder by its whole path."""
    return place if "://" in place else os.path.abspath(place)


def names_of(text: str) -> list[str]:
    """Return the names in a comma-separated option.

    Examples
    --------
    >>> names_of("carrier, flight")
    ['carrier', 'flight']
    """
    return [name.strip() for name in text.split(",") if name.strip()]


def config_of(texts: list[str]) -> dict[str, str]:
    """Return settings by name from options like `retention.ms=86400000`.

    Raises
    ------
    OptionError
        Where one is not of this form.
    """
    config = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            message = f"--config takes NAME=VALUE, e.g. retention.ms=86400000; got {text!r}"
            raise OptionError(message)
        config[name.strip()] = value.strip()
    return config
