"""What members of a group tell each other in mapped memory: a new state, and that they live.

    0: boot id, 64 bytes │ 64: version of the state │ 128: heartbeat of slot 0 │ 136: of slot 1 │ …

Heartbeats are by the monotonic clock, which all processes of a boot share.
"""

from __future__ import annotations

from millstream.log.groups.membership import MEMBERS_MAX
from millstream.storage import Storage

_BOOT_BYTES = 64
_VERSION = 64
_HEARTBEATS = 128


class GroupCells:
    """The mapped file `cells` in a group's folder.

    Parameters
    ----------
    directory
        The group's.
    """

    def __init__(self, directory: str, storage: Storage) -> None:
        self._boot = storage.boot_id().encode()[:_BOOT_BYTES].ljust(_BOOT_BYTES, b"\0")
        self._cells = storage.shared_cells(f"{directory}/cells", _HEARTBEATS + 8 * MEMBERS_MAX)

    def is_of_this_boot(self) -> bool:
        """Return `True` iff the cells were written since the machine started."""
        return self._cells.read(0, _BOOT_BYTES) == self._boot

    def begin(self, version: int, now_us: int) -> None:
        """Write all cells anew, as if every member had just been heard."""
        beat = now_us.to_bytes(8, "little", signed=True)
        self._cells.write(_HEARTBEATS, MEMBERS_MAX * beat)
        self.version = version
        self._cells.write(0, self._boot)

    @property
    def version(self) -> int:
        """Version of the newest state that counts."""
        return self._cells.read_word(_VERSION)

    @version.setter
    def version(self, version: int) -> None:
        self._cells.write_word(_VERSION, version)

    def beat(self, slot: int, now_us: int) -> None:
        """Say that the member in `slot` is alive."""
        self._cells.write_word(_HEARTBEATS + 8 * slot, now_us)

    def last_beat_us(self, slot: int) -> int:
        """Return when the member in `slot` was last heard, by the monotonic clock."""
        return self._cells.read_word(_HEARTBEATS + 8 * slot)
