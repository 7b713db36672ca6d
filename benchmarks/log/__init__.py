"""The log's speed beside the machine's limit and beside others who do the same job.

    python -m benchmarks.log --json [--quick] [appends producers …]

Each module measures one thing, as its head says. A peer that is not installed is left out, and
standard error says so.
"""
