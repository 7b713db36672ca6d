"""A disk in memory that tears writes, loses what was not synced, and crashes on demand.

    disk ── storage("a") ─▶ view of process a: dies at a chosen effect, may meet refusals
         ├─ storage("b") ─▶ view of process b
         └─ power_cut()  ─▶ all views die; unsynced bytes and names survive in any part

Everything that a real disk leaves open is decided by the `Chooser` that the disk was given:
the same seed gives the same run. One thread uses it.
"""

from millstream.storage_memory.contents import Chooser as Chooser
from millstream.storage_memory.disk import MemoryDisk as MemoryDisk
from millstream.storage_memory.disk import MemoryStorage as MemoryStorage
from millstream.storage_memory.disk import SimulatedCrash as SimulatedCrash

__all__ = ["Chooser", "MemoryDisk", "MemoryStorage", "SimulatedCrash"]
