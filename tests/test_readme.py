"""What README shows is what happens: its job and its commands, exactly as they are written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import duckdb
import polars
import pyarrow.ipc
import pytest

from millstream.cli.main import app
from millstream.log import Log

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [text for name, text in fenced if name == language]


def block_with(text: str) -> str:
    """Return the first program that README shows with `text` in it."""
    return next(each for each in blocks("python") if text in each)


def shell(line: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """Run a line as README's reader does, who has activated the environment."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "COLUMNS": "80"}
    environment.pop("MILLSTREAM_LOG", None)
    return subprocess.run(
        line,
        shell=True,
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `make demo` was run and the job was saved under the name that README gives it."""
    directory = tmp_path_factory.mktemp("readme")
    assert "\tmillstream demo" in (ROOT / "Makefile").read_text().replace("$(BIN)/", "")
    assert shell("millstream demo --no-ray", directory).returncode == 0
    (name,) = re.findall(r"Save this as `(\w+\.py)`", README)
    job = block_with("worst_hours")
    (directory / name).write_text(job)
    return directory


def test_the_job_is_run_as_it_is_shown(directory: Path) -> None:
    # What README shows of Ray is tried where the tests start a Ray.
    local = [block for block in blocks("") if not re.search("ray|millstream log |s3:", block)]
    done = run_as_shown(local, directory, 2)
    assert len(done.stdout.splitlines()) == 3 + 10
    hours = Log(directory / "demo-data").topic("worst_hours").to_arrow()
    assert hours.num_rows == 15_821


def run_as_shown(shown: list[str], directory: Path, count: int) -> subprocess.CompletedProcess[str]:
    """Run the commands of some blocks one after another, and give back what the last did."""
    lines = [line for block in shown for line in block.splitlines()]
    commands = [line for line in lines if line.startswith("millstream ")]
    assert len(commands) == count
    for command in commands:
        done = shell(command, directory)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
    return done


def test_the_copies_are_made_as_it_is_shown(directory: Path) -> None:
    run_as_shown([block for block in blocks("") if "millstream log " in block], directory, 4)
    flights = Log(directory / "demo-data").topic("flights").to_arrow()
    for copy in ("restored", "copy"):
        assert Log(directory / copy).topic("flights").to_arrow() == flights


def test_the_picture_is_the_demos(directory: Path) -> None:
    shown, drawn = ROOT / "docs" / "late_departures.png", directory / "demo-data"
    assert shown.stat().st_size < 200_000
    drawn_size = (drawn / "late_departures.png").stat().st_size
    assert abs(drawn_size - shown.stat().st_size) < 0.2 * drawn_size


def test_others_read_a_segment(directory: Path) -> None:
    (segment,) = (directory / "demo-data" / "topics" / "00000001" / "0" / "0").glob("*.arrows")
    by_polars = polars.read_ipc_stream(segment)
    by_pyarrow = pyarrow.ipc.open_stream(segment).read_all()
    with duckdb.connect() as connection:
        connection.register("flights", by_pyarrow)
        (counted,) = connection.execute("SELECT count(*) FROM flights").fetchall()
    assert counted == (by_polars.height,) == (len(by_pyarrow.to_pandas()),)
    (end, *_) = Log(directory / "demo-data").topic("flights").stable_ends()
    assert by_polars.height == end


def test_a_job_is_tested_as_it_is_shown(directory: Path) -> None:
    (directory / "test_shown.py").write_text(block_with("ms.testing"))
    done = shell("python -m pytest -q -p no:cacheprovider test_shown.py", directory)
    assert "1 passed" in done.stdout, done.stdout


def test_the_expressions_are_computed_as_they_are_shown(directory: Path) -> None:
    program = f"{block_with('named = ')}\nprint(named.collect().num_rows)"
    (directory / "expressions.py").write_text(program)
    done = shell("MILLSTREAM_LOG=demo-data python expressions.py", directory)
    assert (done.returncode, done.stdout) == (0, "336776\n"), done.stderr


def test_functions_are_called_as_they_are_shown(directory: Path) -> None:
    shown = "print(costs.explain(), len(costs.collect()), len(words.collect()))"
    (directory / "functions.py").write_text(f"{block_with('@ms.udf')}\n{shown}")
    done = shell("MILLSTREAM_LOG=demo-data python -W error functions.py", directory)
    assert done.returncode == 0, done.stderr
    assert "cost = cost(dep_delay)" in done.stdout


def test_results_are_kept_up_to_date_as_it_is_shown(directory: Path) -> None:
    (directory / "kept.py").write_text(block_with("by_carrier"))
    done = shell("millstream run kept.py --log demo-data --until end", directory)
    assert done.returncode == 0, done.stderr
    log = Log(directory / "demo-data")
    found, flights = log.topic("by_carrier").latest(), log.topic("flights").to_arrow()
    with duckdb.connect() as connection:
        query = "SELECT carrier, count(*), max(dep_delay) FROM flights GROUP BY carrier ORDER BY 1"
        connection.register("flights", flights)
        wanted = connection.sql(query).fetchall()
        connection.register("kept", found)
        connection.register("busy", log.topic("busy_changes").to_arrow())
        kept = connection.sql("SELECT carrier, flights, worst FROM kept ORDER BY 1").fetchall()
        held = connection.sql("SELECT carriers FROM busy GROUP BY 1 HAVING sum(weight) > 0")
        assert kept == wanted
        assert held.fetchall() == [(sum(count > 10_000 for _, count, _ in wanted),)]
    assert flights.num_rows == sum(count for _, count, _ in wanted)


def test_every_command_and_option_of_the_table_exists(directory: Path) -> None:
    table = README[README.index("| command |") : README.index("The log is a directory")]
    rows = [line.split("|")[1:3] for line in table.splitlines()[2:] if line.startswith("|")]
    assert len(rows) == len(app.registered_commands) + len(app.registered_groups)
    for command, text in rows:
        (words,) = re.findall(r"^`millstream ([a-z]+(?: list)?)", command.strip())
        helped = shell(f"millstream {words} --help", directory)
        assert helped.returncode == 0
        for option in re.findall(r"--[a-z]+", command + text):
            assert option in helped.stdout
