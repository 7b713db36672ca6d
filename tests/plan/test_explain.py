from __future__ import annotations

from xml.etree import ElementTree

import millstream as ms
from millstream import col
from millstream.dsl.stream import Stream
from millstream.dsl.table import Table, table
from millstream.dsl.windowed import TimedResult
from millstream.operators.operator import OperatorCounters
from millstream.plan.compile import compile_plan
from millstream.plan.draw import job_to_svg
from millstream.plan.explain import explain_job
from tests.dsl.known_topics import KnownTopics


def hours(flights: Stream, airlines: Table) -> TimedResult:
    return (
        flights.filter(col("dep_delay") > 15)
        .with_columns(hours=col("dep_delay") / 60)
        .join(airlines.drop("year"), on="carrier")
        .key_by("origin")
        .window(ms.tumbling("1h"))
        .agg(flights=ms.count(), mean=ms.mean("hours"))
        .named("by-hour")
    )


def test_the_plan_is_told_as_it_was_written(flights: Stream, airlines: Table) -> None:
    text = str(hours(flights, airlines).explain(parallelism=2))
    for line in (
        "2 workers",
        "windows of 1h on scheduled by origin: flights = count(), mean = mean(hours) as 'by-hour'",
        "inner join on carrier [not deterministic: joins by arrival]",
        "with columns hours = dep_delay ÷ 60.0",
        "stream flights (event time scheduled, lateness 1d)",
        "table airlines (key carrier; one version, no time)",
        "· test_explain.py:",
    ):
        assert line in text


def test_the_stages_tell_what_fused_and_why_rows_cross(flights: Stream, airlines: Table) -> None:
    text = str(hours(flights, airlines).explain(parallelism=2))
    for line in (
        "fused: filter dep_delay > 15.0; select scheduled, carrier, origin, dest, dep_delay, year, "
        "hours = dep_delay ÷ 60.0",
        "combine-origin ◀ join-airlines: combine by origin and window",
        "exchange-origin ◀ combine-origin: sends rows by origin",
        "exchange by origin: 'flights' is not written by key",
        "source-flights: reads flights by scheduled: scheduled, carrier, origin, dep_delay",
        "table-airlines: reads all of table airlines on every worker: carrier",
        "join-airlines ◀ select, table-airlines: inner join on carrier",
        "by-hour ◀ exchange-origin: windows of 1h on scheduled by origin: flights = count(), ",
    ):
        assert line in text
    assert "no exchange: one worker has all rows" in str(
        hours(flights, airlines).explain(parallelism=1)
    )


def test_what_is_shared_is_told_once(flights: Stream, airlines: Table) -> None:
    result = hours(flights, airlines)
    roots = [result.to("hours").node, result.late().to("late").node]
    text = explain_job(roots, "job", 1).text
    assert text.count("stream flights") == 1
    assert "(the same as above)" in text


def test_counters_are_shown_beside_their_operator(flights: Stream, airlines: Table) -> None:
    roots = [hours(flights, airlines).to("hours").node]
    counters = {
        "by-hour": OperatorCounters(rows_in=1_000, rows_out=24, rows_late=3, rows_numba=1_000)
    }
    text = explain_job(roots, "job", 1, counters).text
    assert "1,000 rows in, 24 out, 3 late; through Numba 1,000, pyarrow 0, Python 0" in text


def test_an_explanation_is_text_when_printed_and_a_picture_in_a_notebook(flights: Stream) -> None:
    explanation = flights.filter(col("origin") == "<JFK>").explain()
    assert repr(explanation) == str(explanation) == explanation.text
    html = explanation._repr_html_()
    assert html.startswith("<div")
    assert "&lt;JFK&gt;" in html
    assert "<JFK>" not in html
    assert flights._repr_html_().startswith("<div")
    assert flights.to("copy")._repr_html_().startswith("<div")


def test_a_pass_is_called_by_what_it_does(flights: Stream) -> None:
    late = flights.filter(col("dep_delay") > 15)
    text = str(late.explain(parallelism=1))
    assert "reads flights by scheduled: all 6 columns" in text
    assert "filter ◀ source-flights: filter dep_delay > 15.0\n" in text
    text = str(late.select("origin", hours=col("dep_delay") / 60).explain(parallelism=1))
    assert (
        "select ◀ source-flights: fused: filter dep_delay > 15.0; select origin, hours = " in text
    )


def test_a_renamed_table_is_told(flights: Stream, airlines: Table) -> None:
    text = str(flights.join(airlines.rename({"year": "founded"}), on="carrier").explain())
    assert "rename-airlines ◀ table-airlines: select carrier, name, founded = year" in text


def test_a_join_tells_that_a_row_may_match_many(
    log: KnownTopics, flights: Stream, airlines: Table
) -> None:
    planes = table("planes", log=log).rename({"year": "built"})
    explanation = flights.join(planes, on="dest", how="left").explain(parallelism=1)
    for line in (
        "left join on dest, many matches    · test_explain.py",
        "join-planes ◀ source-flights, rename-planes: left join on dest, many matches",
        "      many matches: a row goes out once with each (the table's key is built, dest)",
    ):
        assert line in str(explanation)
    by_key = flights.join(planes, left_on=["dest", "year"], right_on=["dest", "built"])
    more = flights.rename({"year": "since"}).join(
        airlines, left_on=["carrier", "dest"], right_on=["carrier", "name"]
    )
    for each in (by_key, more):
        assert "many" not in str(each.explain())


NAMESPACE = "{http://www.w3.org/2000/svg}"


def test_the_picture_has_a_box_for_each_thing_and_a_frame_for_each_stage(
    flights: Stream, airlines: Table
) -> None:
    result = hours(flights, airlines)
    sinks = [result.to("hours").node, result.late().to("late").node]
    svg = ElementTree.fromstring(job_to_svg(compile_plan(sinks, "job", 2)))
    texts = [each.text or "" for each in svg.iter(f"{NAMESPACE}text")]
    for shown in (
        *("flights", "airlines", "by-hour", "exchange", "hours", "late"),
        *("stream, 6 of 6 columns", "table, 2 of 3 columns", "1h by origin", "by origin"),
    ):
        assert shown in texts
    assert [each for each in texts if each.startswith("stage")] == ["stage 0", "stage 1"]
    boxes = [each for each in svg.iter(f"{NAMESPACE}rect") if each.get("rx") == "6"]
    places = [(each.get("x"), each.get("y")) for each in boxes]
    assert len(places) == len(set(places)) == 9


def test_what_is_too_long_for_a_box_is_whole_where_the_mouse_rests(flights: Stream) -> None:
    sink = flights.select(sum=col("dep_delay") + col("dep_delay") * col("dep_delay")).to("x" * 60)
    svg = ElementTree.fromstring(job_to_svg(compile_plan([sink.node], "job", 1)))
    texts = [each.text or "" for each in svg.iter(f"{NAMESPACE}text")]
    assert "x" * 25 + "…" in texts
    assert all(len(each) <= 33 for each in texts)
    titles = [each.text for each in svg.iter(f"{NAMESPACE}title")]
    assert "select: select sum = dep_delay + (dep_delay × dep_delay)" in titles
