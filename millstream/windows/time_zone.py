"""When it is a local time in a time zone, for any year that int64 microseconds reach.

Python's rules of a zone cover the years 1 to 9999. The calendar repeats every 400 years (146,097
days, which are whole weeks), so a year beyond is looked up where its rules are those of the last
or the first years that are known.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from millstream.errors import OptionError

_CYCLE_US = 146_097 * 86_400_000_000
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  # local times have no zone
_EPOCH_UTC = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_US = (datetime(9000, 1, 1) - _EPOCH) // timedelta(microseconds=1)  # noqa: DTZ001  # local
_FIRST_US = (datetime(1000, 1, 1) - _EPOCH) // timedelta(microseconds=1)  # noqa: DTZ001  # local


class TimeZone:
    """A zone of the IANA database.

    Parameters
    ----------
    name
        E.g. `"Europe/Berlin"`.

    Raises
    ------
    OptionError
        When nobody knows it.

    Examples
    --------
    >>> TimeZone("Europe/Berlin").to_utc(np.array([0])).tolist()
    [-3600000000]
    """

    def __init__(self, name: str) -> None:
        try:
            self._zone = ZoneInfo(name)
        except (LookupError, ValueError, OSError) as error:
            message = (
                f"no time zone is called {name!r}; write a name of the IANA database, "
                'e.g. "Europe/Berlin" or "UTC"'
            )
            raise OptionError(message) from error
        self._is_utc = name == "UTC"
        self._known: dict[int, int] = {}

    def to_utc(self, local_us: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the first instant at which the clocks show each local time, or a later one.

        A time that clocks skip is the instant at which they skip it; of one that they show twice
        it is the first.
        """
        if self._is_utc:
            return local_us
        known = self._known
        return np.array(
            [
                known[each] if each in known else self._remembered(each)
                for each in local_us.tolist()
            ],
            dtype=np.int64,
        )

    def _remembered(self, local_us: int) -> int:
        if len(self._known) >= 65_536:
            self._known.clear()
        found = self._known[local_us] = self._to_utc(local_us)
        return found

    def _to_utc(self, local_us: int) -> int:
        cycles = 0
        if local_us >= _LAST_US:
            cycles = (local_us - _LAST_US) // _CYCLE_US + 1
        elif local_us < _FIRST_US:
            cycles = (local_us - _FIRST_US) // _CYCLE_US
        local = _EPOCH + timedelta(microseconds=local_us - cycles * _CYCLE_US)
        # Without a fold it is the first of two times, and what a gap skips is moved on by the gap.
        instant = local.replace(tzinfo=self._zone).astimezone(UTC)
        back = instant.astimezone(self._zone).replace(tzinfo=None)
        if back != local:
            instant = self._end_of_gap(instant, local)
        return (instant - _EPOCH_UTC) // timedelta(microseconds=1) + cycles * _CYCLE_US

    def _end_of_gap(self, instant: datetime, local: datetime) -> datetime:
        """Return the first instant whose local time is beyond `local`, which no clock shows."""
        before, after = instant - timedelta(days=1), instant
        while after - before > timedelta(microseconds=1):
            middle = before + (after - before) / 2
            if middle.astimezone(self._zone).replace(tzinfo=None) > local:
                after = middle
            else:
                before = middle
        return after
