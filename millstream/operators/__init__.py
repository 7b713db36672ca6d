"""Operators: what a stage does with batches, watermarks and barriers, one idea a file."""
