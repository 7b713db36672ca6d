"""The log: topics of immutable, partitioned, append-only rows in a directory."""

from millstream.log.log import Log as Log
from millstream.log.topic import Topic as Topic

__all__ = ["Log", "Topic"]
