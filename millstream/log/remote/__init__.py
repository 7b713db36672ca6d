"""A log directory served over Arrow Flight, and the log of an address (PROTOCOL.md)."""
