"""The picture at the end of the demo: late departures over the year, by airport."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from millstream.errors import MissingExtraError

COLORS = {"EWR": "#0b6e99", "JFK": "#d9730d", "LGA": "#6940a5"}
AIRPORTS = {"EWR": "Newark", "JFK": "John F. Kennedy", "LGA": "La Guardia"}


def daily_delays(hours: pa.Table) -> dict[str, tuple[list[object], list[float]]]:
    """Return, by airport, the days of the year and the hours of delay summed over each day."""
    minutes = pc.multiply(hours["mean_delay"], hours["flights"].cast(pa.float64()))
    day = pc.floor_temporal(hours["window_start"].cast(pa.timestamp("us")), unit="day")
    table = pa.table({"origin": hours["origin"], "day": day, "minutes": minutes})
    daily = table.group_by(["origin", "day"]).aggregate([("minutes", "sum")])
    daily = daily.sort_by([("origin", "ascending"), ("day", "ascending")])
    series: dict[str, tuple[list[object], list[float]]] = {}
    for row in daily.to_pylist():
        days, values = series.setdefault(row["origin"], ([], []))
        days.append(row["day"])
        values.append(row["minutes_sum"] / 60)
    return series


def draw(hours: pa.Table, path: Path) -> None:
    """Write a PNG of each airport's late departures over the year to `path`.

    Raises
    ------
    MissingExtraError
        When matplotlib is not installed.
    """
    try:
        from matplotlib import dates
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        message = (
            "the picture cannot be drawn: package 'matplotlib' is not installed; "
            "install the demo's extra: pip install 'millstream[demo]'"
        )
        raise MissingExtraError(message) from error

    series = daily_delays(hours)
    top = max((max(values) for _, values in series.values()), default=1.0)
    # A figure of its own, not pyplot's: no display is asked for and no global state is left.
    figure = Figure(figsize=(11, 6.2), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(max(len(series), 1), 1, sharex=True, squeeze=False)[:, 0]
    for panel, (origin, (days, values)) in zip(panels, series.items(), strict=False):
        color = COLORS.get(origin, "#444444")
        panel.fill_between(days, values, color=color, alpha=0.35, linewidth=0)
        panel.plot(days, values, color=color, linewidth=0.9)
        panel.set_ylim(0, top * 1.05)
        panel.margins(x=0.005)
        panel.grid(axis="y", color="#dddddd", linewidth=0.6)
        panel.spines[["top", "right"]].set_visible(False)
        panel.set_title(
            f"{AIRPORTS.get(origin, origin)} ({origin})", loc="left", fontsize=10, color=color
        )
    figure.supylabel("hours of delay a day, flights over 15 minutes late", fontsize=10)
    axis: Any = dates
    panels[-1].xaxis.set_major_locator(axis.MonthLocator())
    panels[-1].xaxis.set_major_formatter(axis.DateFormatter("%b"))
    figure.suptitle("Late departures from New York City, 2013", fontsize=13)
    figure.savefig(path)
