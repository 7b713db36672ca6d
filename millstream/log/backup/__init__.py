"""Second copies of a log: backups in a store of objects, and mirrors that are logs themselves."""

from millstream.log.backup.backup import BackupReport, back_up, backups, restore
from millstream.log.backup.mirror import Mirror, promote

__all__ = ["BackupReport", "Mirror", "back_up", "backups", "promote", "restore"]
