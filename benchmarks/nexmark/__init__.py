"""Nexmark: an auction house's people, auctions and bids, and queries over them.

The generator follows the public one (github.com/nexmark/nexmark, after Tucker et al., "NEXMark: a
benchmark for queries over data streams", 2002): the same proportions, hot keys, lengths and value
ranges, with a seed. The queries' jobs are in `jobs/nexmark/`.
"""
