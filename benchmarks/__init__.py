"""What the platform's speed is, beside the bound and beside its peers, in one run.

Each benchmark is a module that runs alone and prints one JSON object:

    python -m benchmarks.filter_map --quick --json
    python -m benchmarks                             # all; results/latest.json, README's table
    python -m benchmarks.compare OLD.json NEW.json
"""
