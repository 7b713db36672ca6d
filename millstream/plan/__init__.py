"""The logical plan: what a job means, as frozen typed nodes, and its way to a job graph.

nodes ──rewrites──▶ nodes ──compile──▶ runtime.graph.JobGraph
  └────────────── explain ──────────────────┘
"""
