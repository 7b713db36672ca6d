"""Compiled loops of the operators; importing a module of this folder imports Numba."""
