"""The picture at the end of the demo: late departures over the year, by airport."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from millstream.errors import MissingExtraError

COLORS = {"EWR": "#0b6e99", "JFK": "#d9730d", "LGA": "#6940a5"}
AIRPORTS = {"EWR": "Newark", "JFK": "John F. Kennedy", "LGA": "La Guardia"}
MUTED = "#6b7280"


def daily_delays(hours: pa.Table) -> dict[str, tuple[list[object], list[float]]]:
    """Return, by airport, the days of the year and the hours of delay summed over each day."""
    minutes = pc.multiply(hours["mean_delay"], hours["flights"].cast(pa.float64()))
    day = pc.floor_temporal(hours["window_start"].cast(pa.timestamp("us")), unit="day")
    table = pa.table({"origin": hours["origin"], "day": day, "minutes": minutes})
    daily = table.group_by(["origin", "day"]).aggregate([("minutes", "sum")])
    daily = daily.sort_by([("origin", "ascending"), ("day", "ascending")])
    # The year in New York ends in the first hours of the next one in UTC: that is not a day.
    daily = daily.filter(pc.less(pc.year(daily["day"]), 2014))
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
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        message = (
            "the picture cannot be drawn: package 'matplotlib' is not installed; "
            "install the demo's extra: pip install 'millstream[demo]'"
        )
        raise MissingExtraError(message) from error

    series = daily_delays(hours)
    # A figure of its own, not pyplot's: no display is asked for and no global state is left.
    figure = Figure(figsize=(11, 6.8), dpi=110, facecolor="white")
    FigureCanvasAgg(figure)
    figure.subplots_adjust(left=0.05, right=0.985, top=0.83, bottom=0.055, hspace=0.38)
    figure.text(0.05, 0.945, "Hours lost to late departures", fontsize=17, weight="bold")
    figure.text(
        0.05,
        0.905,
        "New York City, 2013: delays of flights over 15 minutes late, summed over each day (UTC)",
        fontsize=10.5,
        color=MUTED,
    )
    panels = figure.subplots(max(len(series), 1), 1, sharex=True, sharey=True, squeeze=False)
    for panel, (origin, (days, values)) in zip(panels[:, 0], series.items(), strict=False):
        _draw_airport(panel, origin, days, values)
    _name_months(panels[-1, 0])
    figure.savefig(path)


def _draw_airport(panel: Any, origin: str, days: list[object], values: list[float]) -> None:
    """Draw one airport's days, and name its worst one."""
    color = COLORS.get(origin, "#444444")
    panel.fill_between(days, values, color=color, alpha=0.25, linewidth=0)
    panel.plot(days, values, color=color, linewidth=1.1)
    panel.set_ylim(bottom=0)
    panel.margins(x=0)
    panel.grid(axis="y", color="#e5e7eb", linewidth=0.8)
    panel.set_axisbelow(True)
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.spines["bottom"].set_color("#9ca3af")
    panel.tick_params(which="both", length=0, labelsize=9, labelcolor=MUTED)
    panel.locator_params(axis="y", nbins=4)
    panel.yaxis.set_major_formatter("{x:.0f} h")
    name = f"{AIRPORTS.get(origin, origin)} ({origin})"
    panel.set_title(name, loc="left", fontsize=11, weight="bold", color=color)
    worst = max(range(len(values)), key=values.__getitem__)
    panel.annotate(
        f"{days[worst]:%d %b}: {values[worst]:,.0f} h".removeprefix("0"),
        (days[worst], values[worst]),
        xytext=(7, -7),
        textcoords="offset points",
        fontsize=9,
        color=color,
    )


def _name_months(panel: Any) -> None:
    """Put a month's name in its middle."""
    from matplotlib import dates, ticker

    axis: Any = dates
    panel.xaxis.set_major_locator(axis.MonthLocator())
    panel.xaxis.set_minor_locator(axis.MonthLocator(bymonthday=15))
    panel.xaxis.set_major_formatter(ticker.NullFormatter())
    panel.xaxis.set_minor_formatter(axis.DateFormatter("%b"))
    panel.tick_params(axis="x", which="major", length=4, color="#9ca3af")
    panel.tick_params(axis="x", which="minor", length=0, labelsize=9, labelcolor=MUTED)
