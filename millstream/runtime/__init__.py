"""Runs job graphs: deterministic workers and a coordinator, driven by a host.

    plan ─▶ graph ─▶ coordinator ── commands ──▶ worker 0 … P−1 ── batches ──▶ each other
                         ▲ ◀────── reports ──────┘
                         └─ manifests: one append to the log's control topic each

Nothing here knows threads, sockets or the machine's clock; only `hosts/` does.
"""
