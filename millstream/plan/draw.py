"""A job's stages as a picture: boxes left to right, a frame around each stage (SVG)."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from millstream.plan.compile import CompiledJob
from millstream.plan.stage_text import exchange_text, operator_brief, source_brief
from millstream.runtime.graph import Stage

BOX_WIDTH, BOX_HEIGHT = 184, 44
GAP_X, GAP_Y = 40, 18
MARGIN, TITLE = 22, 24
NAME_LENGTH_MAX, DETAIL_LENGTH_MAX = 26, 33

_FILLS = {
    "source": "#dbeafe",
    "table": "#ede9fe",
    "exchange": "#fef3c7",
    "operator": "#ffffff",
    "sink": "#dcfce7",
}


@dataclass(frozen=True, slots=True)
class _Thing:
    """What a box stands for; `name` is that of the graph, `title` what the box shows."""

    name: str
    title: str
    kind: str
    detail: str
    inputs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Box:
    thing: _Thing
    stage: int
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
        f'<div style="overflow-x:auto">{job_to_svg(compiled)}</div>'
        f"<details><summary>explain()</summary><pre>{escape(text)}</pre></details>"
    )


def job_to_svg(compiled: CompiledJob) -> str:
    """Return a compiled job as an SVG element; names are escaped."""
    boxes = _boxes(compiled)
    places = {box.thing.name: box for box in boxes}
    columns = max(box.column for box in boxes) + 1
    rows = max(box.row for box in boxes) + 1
    width = 2 * MARGIN + columns * (BOX_WIDTH + GAP_X)
    height = 2 * MARGIN + TITLE + rows * (BOX_HEIGHT + GAP_Y)
    frames = [_frame(stage.index, boxes, height) for stage in compiled.graph.stages]
    lines = [
        _line(places[source], box)
        for box in boxes
        for source in box.thing.inputs
        if source in places
    ]
    drawn = [_drawn(box) for box in boxes]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="system-ui, sans-serif" font-size="12">'
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>'
        f"{''.join(frames)}{''.join(lines)}{''.join(drawn)}</svg>"
    )


def _boxes(compiled: CompiledJob) -> list[_Box]:
    """Return a box for each thing: right of its inputs, and a source left of its first reader."""
    boxes: list[_Box] = []
    columns: dict[str, int] = {}
    taken: set[tuple[int, int]] = set()
    first = 0
    for stage in compiled.graph.stages:
        things = _things(stage, compiled)
        for thing in things:
            # Each stage begins to the right of the one before it.
            behind = [columns[each] + 1 for each in thing.inputs if each in columns]
            columns[thing.name] = max([first, *behind])
        for thing in things:
            readers = [columns[each.name] for each in things if thing.name in each.inputs]
            if not thing.inputs and readers:
                columns[thing.name] = max(min(readers) - 1, first)
        # Tables come last, and so lie lowest: a stream's way is straight.
        for thing in sorted(things, key=lambda each: each.kind == "table"):
            column = columns[thing.name]
            row = next(row for row in range(len(things)) if (column, row) not in taken)
            taken.add((column, row))
            boxes.append(_Box(thing, stage.index, column, row))
        first = max(columns.values(), default=-1) + 1
    return boxes


def _things(stage: Stage, compiled: CompiledJob) -> list[_Thing]:
    """Return what a stage holds; an exchange is drawn once, where rows are sent."""
    things = [
        _Thing(
            source.name,
            source.topic,
            "table" if source.role == "table" else "source",
            source_brief(source, compiled),
        )
        for source in stage.sources
    ]
    for operator in stage.operators:
        inputs = tuple(each.node for each in operator.inputs)
        detail = operator_brief(operator, compiled)
        things.append(_Thing(operator.name, operator.name, "operator", detail, inputs))
    for sent in stage.sends:
        inputs = (sent.input.node,)
        things.append(_Thing(sent.name, "exchange", "exchange", exchange_text(sent), inputs))
    for sink in stage.sinks:
        title, detail = sink.topic, "sink, a topic"
        if sink.kind == "memory":
            title, detail = "collect", "rows stay in this process"
        things.append(_Thing(sink.name, title, "sink", detail, (sink.input.node,)))
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
    # The bend lies in the last gap: before it the line runs straight on.
    start, bend = x2 - GAP_X, GAP_X // 2
    return (
        f'<path d="M{x1} {y1} H{start} C{start + bend} {y1} {x2 - bend} {y2} {x2} {y2}" '
        f'fill="none" stroke="#94a3b8" stroke-width="1.5"/>'
        f'<circle cx="{x2}" cy="{y2}" r="3" fill="#94a3b8"/>'
    )


def _drawn(box: _Box) -> str:
    middle, thing = box.x + BOX_WIDTH // 2, box.thing
    return (
        f"<g><title>{escape(thing.name)}: {escape(thing.detail)}</title>"
        f'<rect x="{box.x}" y="{box.y}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="6" '
        f'fill="{_FILLS[thing.kind]}" stroke="#475569"/>'
        f'<text x="{middle}" y="{box.y + 18}" text-anchor="middle" fill="#0f172a">'
        f"{escape(_short(thing.title, NAME_LENGTH_MAX))}</text>"
        f'<text x="{middle}" y="{box.y + 34}" text-anchor="middle" fill="#64748b" '
        f'font-size="10">{escape(_short(thing.detail, DETAIL_LENGTH_MAX))}</text></g>'
    )


def _short(text: str, length_max: int) -> str:
    return text if len(text) <= length_max else f"{text[: length_max - 1]}…"
