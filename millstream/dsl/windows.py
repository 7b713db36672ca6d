"""Windows as a user names them."""

from __future__ import annotations

from datetime import timedelta

from millstream.dsl.location import user_location
from millstream.errors import OptionError
from millstream.windows.duration import parse_duration_us
from millstream.windows.tumbling import Tumbling


def tumbling(size: str | timedelta, offset: str | timedelta = "0s") -> Tumbling:
    """Return windows of one size, one after another: each event is in exactly one.

    Parameters
    ----------
    size
        E.g. `"1h"`. A window holds its start and not its end.
    offset
        By how much the windows' starts are shifted from multiples of `size` since
        1970-01-01 UTC.

    Raises
    ------
    OptionError
        When a duration cannot be read or `size` is not positive.

    Examples
    --------
    >>> tumbling("1h").size_us
    3600000000
    """
    location = user_location()
    size_us = duration_option("size", size, location)
    if size_us == 0:
        message = f"{location}: a window's size must be more than 0; got {size!r}"
        raise OptionError(message)
    return Tumbling(size_us, duration_option("offset", offset, location) % size_us)


def duration_option(name: str, value: str | timedelta, location: str) -> int:
    """Return the duration that option `name` has, in microseconds, from 0 on.

    Raises
    ------
    OptionError
        When it is none; names the option and the user's line.
    """
    try:
        duration_us = parse_duration_us(value)
    except (OptionError, TypeError, AttributeError) as error:
        message = f'{location}: {name}={value!r} is no duration; write e.g. "90s" or "24h"'
        raise OptionError(message) from error
    if duration_us < 0:
        message = f"{location}: {name}={value!r} is negative; give a duration from 0 on"
        raise OptionError(message)
    return duration_us
