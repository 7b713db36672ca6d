"""A job's stages as a picture: boxes left to right, a frame around each stage (SVG)."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from millstream.plan.compile import CompiledJob
from millstream.runtime.graph import JobGraph, Stage

BOX_WIDTH, BOX_HEIGHT = 168, 44
GAP_X, GAP_Y = 46, 18
MARGIN, TITLE = 22, 24
TEXT_LENGTH_MAX = 25

_FILLS = {
    "source": "#dbeafe",
    "table": "#ede9fe",
    "exchange": "#fef3c7",
    "operator": "#ffffff",
    "sink": "#dcfce7",
}


@dataclass(frozen=True, slots=True)
class _Box:
    name: str
    kind: str
    detail: str
    stage: int
    inputs: tuple[str, ...]
    column: int
    row: int

    @property
    def x(self) -> int:
        return MARGIN + self.column * (BOX_WIDTH + GAP_X) + GAP_X // 2

    @property
    def y(self) -> int:
        return MARGIN + TITLE + self.row * (BOX_HEIGHT + GAP_Y)


def job_to_html(compiled: CompiledJob, text: str) -> str:
    """Return the picture of a compiled job and, folded below it, the explanation's text."""
    return (
        f'<div style="overflow-x:auto">{graph_to_svg(compiled.graph)}</div>'
        f"<details><summary>explain()</summary><pre>{escape(text)}</pre></details>"
    )


def graph_to_svg(graph: JobGraph) -> str:
    """Return a job graph as an SVG element; names are escaped."""
    boxes = _boxes(graph)
    places = {box.name: box for box in boxes}
    columns = max(box.column for box in boxes) + 1
    rows = max(box.row for box in boxes) + 1
    width = 2 * MARGIN + columns * (BOX_WIDTH + GAP_X)
    height = 2 * MARGIN + TITLE + rows * (BOX_HEIGHT + GAP_Y)
    frames = [_frame(stage.index, boxes, height) for stage in graph.stages]
    lines = [
        _line(places[source], box) for box in boxes for source in box.inputs if source in places
    ]
    drawn = [_drawn(box) for box in boxes]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="system-ui, sans-serif" font-size="12">'
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>'
        f"{''.join(frames)}{''.join(lines)}{''.join(drawn)}</svg>"
    )


def _boxes(graph: JobGraph) -> list[_Box]:
    boxes: list[_Box] = []
    columns: dict[str, int] = {}
    filled: dict[int, int] = {}
    first = 0
    for stage in graph.stages:
        for name, kind, detail, inputs in _things(stage):
            # Each stage begins to the right of the one before it.
            column = max([first, *(columns[each] + 1 for each in inputs if each in columns)])
            row = filled.get(column, 0)
            boxes.append(_Box(name, kind, detail, stage.index, inputs, column, row))
            # An exchange keeps the place where it is sent; it is drawn once.
            columns[name], filled[column] = column, row + 1
        first = max(columns.values(), default=-1) + 1
    return boxes


def _things(stage: Stage) -> list[tuple[str, str, str, tuple[str, ...]]]:
    things: list[tuple[str, str, str, tuple[str, ...]]] = []
    for source in stage.sources:
        kind = "table" if source.role == "table" else "source"
        things.append((source.name, kind, f"{len(source.schema)} columns", ()))
    for operator in stage.operators:
        inputs = tuple(each.node for each in operator.inputs)
        things.append((operator.name, "operator", operator.config.describe(), inputs))
    for sent in stage.sends:
        detail = f"by {', '.join(sent.key_columns)}" if sent.key_columns else "to the first worker"
        things.append((sent.name, "exchange", detail, (sent.input.node,)))
    for sink in stage.sinks:
        detail = "in this process" if sink.kind == "memory" else f"topic {sink.topic}"
        things.append((sink.name, "sink", detail, (sink.input.node,)))
    return things


def _frame(stage: int, boxes: list[_Box], height: int) -> str:
    inside = [box for box in boxes if box.stage == stage]
    if not inside:
        return ""
    left = min(box.x for box in inside) - GAP_X // 2 + 4
    right = max(box.x for box in inside) + BOX_WIDTH + GAP_X // 2 - 4
    return (
        f'<rect x="{left}" y="{MARGIN - 12}" width="{right - left}" '
        f'height="{height - 2 * MARGIN + 16}" rx="8" fill="#f8fafc" stroke="#cbd5e1" '
        f'stroke-dasharray="4 3"/>'
        f'<text x="{left + 10}" y="{MARGIN + 6}" fill="#64748b">stage {stage}</text>'
    )


def _line(source: _Box, target: _Box) -> str:
    x1, y1 = source.x + BOX_WIDTH, source.y + BOX_HEIGHT // 2
    x2, y2 = target.x, target.y + BOX_HEIGHT // 2
    bend = (x2 - x1) // 2
    return (
        f'<path d="M{x1} {y1} C{x1 + bend} {y1} {x2 - bend} {y2} {x2} {y2}" '
        f'fill="none" stroke="#94a3b8" stroke-width="1.5"/>'
        f'<circle cx="{x2}" cy="{y2}" r="3" fill="#94a3b8"/>'
    )


def _drawn(box: _Box) -> str:
    middle = box.x + BOX_WIDTH // 2
    return (
        f"<g><title>{escape(box.name)}: {escape(box.detail)}</title>"
        f'<rect x="{box.x}" y="{box.y}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="6" '
        f'fill="{_FILLS[box.kind]}" stroke="#475569"/>'
        f'<text x="{middle}" y="{box.y + 18}" text-anchor="middle" fill="#0f172a">'
        f"{escape(_short(box.name))}</text>"
        f'<text x="{middle}" y="{box.y + 34}" text-anchor="middle" fill="#64748b" '
        f'font-size="10">{escape(_short(box.detail))}</text></g>'
    )


def _short(text: str) -> str:
    return text if len(text) <= TEXT_LENGTH_MAX else f"{text[: TEXT_LENGTH_MAX - 1]}…"
