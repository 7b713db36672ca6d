"""Consumer groups: committed offsets, and partitions shared out among members.

    consumer ─▶ membership ─▶ state.json (under group.lock): who is there, who owns what
        │            └──────▶ cells: version of the state, heartbeats
        └─ commit ──────────▶ offsets: a partition whose rows are committed offsets

There is no coordinator process: a member that finds another one dead, or partitions waiting
for it, does what is to be done, under the group's lock.
"""
