"""The fluent surface: what a user writes, turned into a typed, immutable plan.

    expressions ──binding──▶ typed expressions ─┐
    stream, table, windows, functions ──────────┴─▶ plan nodes ──job──▶ a run

Nothing here computes rows. Every mistake that can be seen without rows is raised at the
user's own line.
"""
