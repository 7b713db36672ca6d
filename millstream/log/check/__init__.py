"""Looks whether all that a log holds is whole, and saves what can be saved where it is not."""
