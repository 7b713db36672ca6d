"""The owners' epochs in memory that all processes share, for the check inside every append.

    0: boot id, 64 bytes │ 64: epoch of owner 1 │ 72: of owner 2 │ …

The control topic is the truth; the cells are what it says, as of this boot.
"""

from __future__ import annotations

from collections.abc import Mapping

from millstream.errors import TransactionError
from millstream.storage import Storage

OWNERS_MAX = 65_535

_BOOT_BYTES = 64


class EpochCells:
    """The mapped file `epochs` in the control topic's folder.

    Parameters
    ----------
    directory
        The control topic's.
    """

    def __init__(self, directory: str, storage: Storage) -> None:
        self._boot = storage.boot_id().encode()[:_BOOT_BYTES].ljust(_BOOT_BYTES, b"\0")
        self._cells = storage.shared_cells(f"{directory}/epochs", _BOOT_BYTES + 8 * OWNERS_MAX)

    def is_of_this_boot(self) -> bool:
        """Return `True` iff the cells were written since the machine started."""
        return self._cells.read(0, _BOOT_BYTES) == self._boot

    def rebuild(self, epochs: Mapping[int, int]) -> None:
        """Write all epochs, then the boot id that makes them count."""
        for owner_id, epoch in epochs.items():
            self._cells.write_word(self._position(owner_id), epoch)
        self._cells.write(0, self._boot)

    def epoch(self, owner_id: int) -> int:
        """Return the newest epoch of an owner."""
        return self._cells.read_word(self._position(owner_id))

    def raise_to(self, owner_id: int, epoch: int) -> None:
        """Fence all writers of lower epochs."""
        self._cells.write_word(self._position(owner_id), epoch)

    def check_capacity(self, owner_id: int) -> None:
        """Raise `TransactionError` when there is no cell for another owner."""
        if owner_id > OWNERS_MAX:
            message = f"a log has at most {OWNERS_MAX} owners of transactions; use names again"
            raise TransactionError(message)

    @staticmethod
    def _position(owner_id: int) -> int:
        return _BOOT_BYTES + 8 * (owner_id - 1)
