"""An event streaming platform: a partitioned log and a stream processor over Arrow columns."""
