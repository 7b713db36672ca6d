"""The edges: what carries batches, commands and reports, and wakes who can go on."""
