"""When keys expire: so long after their newest row that none which comes in time continues it.

row ─▶ has the watermark of its partition passed the key's newest time by the TTL? ─▶ begun anew
watermark ─▶ keys whose newest time it passed by the TTL ─▶ forgotten
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from millstream.operators.kernels import group_aggregate as kernels
from millstream.operators.open_windows import OpenWindows
from millstream.windows.watermark import WATERMARK_MIN

Int64Array = npt.NDArray[np.int64]

NO_TIME = np.iinfo(np.int64).min


class Expiry:
    """The newest time of each slot's rows, and which slots are to be looked at next.

    Decided by the watermark that a row's own partition had, so that the same rows expire the same
    keys, whatever the batching and the parallelism.

    Parameters
    ----------
    ttl_us
        How long a key is kept after its newest row, in event time.
    """

    def __init__(self, ttl_us: int) -> None:
        self._ttl_us = ttl_us
        self._last: Int64Array = np.zeros(0, dtype=np.int64)
        self._expired: Int64Array = np.zeros(0, dtype=np.int64)
        self._waiting: npt.NDArray[np.bool_] = np.zeros(0, dtype=np.bool_)
        self._queue = OpenWindows()

    @property
    def size_bytes(self) -> int:
        """Memory held."""
        arrays = (self._last, self._expired, self._waiting)
        return sum(each.nbytes for each in arrays) + self._queue.size_bytes

    @property
    def due_us(self) -> int | None:
        """The watermark at which a slot may have expired; `None`: there is none."""
        earliest_us = self._queue.earliest_us
        return None if earliest_us is None else earliest_us + self._ttl_us

    def late(self, times: Int64Array, stamps: Int64Array) -> npt.NDArray[np.bool_]:
        """Return which rows came when their key may have been forgotten."""
        return times <= np.maximum(stamps, WATERMARK_MIN + self._ttl_us) - self._ttl_us

    def rounds(
        self, slots: Int64Array, added: Int64Array, times: Int64Array, stamps: Int64Array
    ) -> tuple[Int64Array, int]:
        """Return how often each row's key expired in the batch before it, and the most of that."""
        self.renew(added, np.full(len(added), NO_TIME))
        rounds = np.empty(len(slots), dtype=np.int64)
        most = kernels.find_expiries(
            slots, times, stamps, self._ttl_us, self._last, self._expired, rounds
        )
        self._enqueue(slots)
        return rounds, int(most)

    def renew(self, slots: Int64Array, times: Int64Array) -> None:
        """Let `times` be the newest of `slots`, which may be beyond all others so far."""
        capacity = int(slots.max(initial=-1)) + 1
        if len(self._last) < capacity:
            more = max(capacity, 2 * len(self._last)) - len(self._last)
            zeros = np.zeros(more, dtype=np.int64)
            self._last = np.concatenate([self._last, zeros])
            self._expired = np.concatenate([self._expired, zeros])
            self._waiting = np.concatenate([self._waiting, np.zeros(more, dtype=np.bool_)])
        self._last[slots] = times

    def restore(self, slots: Int64Array, times: Int64Array) -> None:
        """Take the newest times of all slots."""
        self.renew(slots, times)
        self._enqueue(slots)

    def take_until(self, watermark_us: int) -> Int64Array:
        """Return the slots that expired by `watermark_us`; they are known no more."""
        if watermark_us <= WATERMARK_MIN + self._ttl_us:
            return np.empty(0, dtype=np.int64)
        until_us = watermark_us - self._ttl_us
        slots = self._queue.take_until(until_us)
        self._waiting[slots] = False
        is_old = self._last[slots] <= until_us
        # Those that got newer rows since they were put in wait on.
        self._enqueue(slots[~is_old])
        return slots[is_old]

    def _enqueue(self, slots: Int64Array) -> None:
        new = np.unique(slots[~self._waiting[slots]])
        self._waiting[new] = True
        self._queue.add(self._last[new], new)
