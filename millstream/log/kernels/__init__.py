"""Compiled loops of the log; importing a module of this folder imports Numba."""
