"""The machine's disk: the only modules that open, write, map and lock files.

`files` is what everything above takes as a `Storage`; `kernel_cache` is where compiled kernels
are kept, which are no part of anybody's data.
"""

from millstream.storage_local.files import LocalStorage as LocalStorage
from millstream.storage_local.files import read_boot_id as read_boot_id

__all__ = ["LocalStorage", "read_boot_id"]
