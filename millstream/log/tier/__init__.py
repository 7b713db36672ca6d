"""Sealed segments in a store of objects, read from there through a cache on this disk."""
