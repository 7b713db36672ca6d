"""Late departures by airport and hour: which hours went wrong in New York, and how badly.

    flights ──┬─ departed? ── late? ── + airline ── by origin ── one-hour windows ──▶ OUTPUT
              │                                                        └─ too late ─▶ OUTPUT_late
              └─ never departed ─────────────────────────────────────▶ OUTPUT_cancelled

Run it over the topics that `millstream demo` wrote:

    millstream run jobs/late_departures.py --log demo-data --until end
    millstream run jobs/late_departures.py --log demo-data --until end \
        --name impatient -- --lateness 10m --output impatient
"""

from __future__ import annotations

import argparse

import millstream as ms
from millstream import col


def build(lateness: str = "24h", output: str = "late_departures") -> list[ms.Sink]:
    """Return the job's sinks: hours, flights that came too late for theirs, cancelled flights.

    Parameters
    ----------
    lateness
        How far behind the newest scheduled departure a flight may still leave and be counted
        in its hour, e.g. `"24h"` or `"10m"`.
    output
        Topic for the hours; the side outputs are named after it.
    """
    flights = ms.stream("flights", time="scheduled", lateness=lateness)
    airlines = ms.table("airlines", key="carrier")

    hours = (
        flights.filter(col("dep_delay") > 15)
        .join(airlines, on="carrier")
        .key_by("origin")
        .window(ms.tumbling("1h"))
        .agg(
            flights=ms.count(),
            mean_delay=ms.mean("dep_delay"),
            worst_delay=ms.max("dep_delay"),
        )
    )
    cancelled = flights.filter(col("dep_delay").is_null())

    return [
        hours.to(output),
        hours.late().to(f"{output}_late"),
        cancelled.to(f"{output}_cancelled"),
    ]


def main() -> None:
    """Build the job from the command line's options and run it."""
    parser = argparse.ArgumentParser(description="Late departures by airport and hour.")
    parser.add_argument("--lateness", default="24h", help="how late a flight may come (24h)")
    parser.add_argument("--output", default="late_departures", help="topic for the hours")
    options = parser.parse_args()
    ms.run(*build(options.lateness, options.output))


if __name__ == "__main__":
    main()
