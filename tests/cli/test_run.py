"""`millstream run`: a script with options from outside, and what of it is an error."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from millstream.log import Log
from tests.cli.conftest import Command

JOB = """
import sys
import millstream as ms
from millstream import col

late = ms.stream("clicks", lateness="1h").filter(col("{column}") >= int(sys.argv[1]))
counts = late.key_by("user").window(ms.tumbling("1h")).agg(clicks=ms.count())
if __name__ == "__main__":
    ms.run(counts.to("counts"))
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "count_clicks.py"
    path.write_text(JOB.format(column="n"))
    return path


def counts(log_directory: Path) -> list[tuple[str, int, int]]:
    rows = Log(log_directory).topic("counts").to_arrow().to_pylist()
    return sorted((row["user"], row["window_start"].hour, row["clicks"]) for row in rows)


@pytest.mark.usefixtures("clicks")
class TestScripts:
    @pytest.mark.parametrize("parallelism", [1, 2])
    def test_a_script_is_run_with_its_own_arguments(
        self, millstream: Command, script: Path, log_directory: Path, parallelism: int
    ) -> None:
        code, _, error = millstream(
            "run", script, "--until", "end", "--parallelism", parallelism, "--", "2"
        )
        assert code == 0, error
        assert "watermark" in error
        assert ("all" in error) == (parallelism > 1)
        assert counts(log_directory) == [("a", 10, 2), ("a", 11, 1), ("b", 10, 2), ("b", 11, 1)]

    def test_a_second_run_goes_on_and_a_fresh_one_starts_over(
        self, millstream: Command, script: Path, log_directory: Path
    ) -> None:
        command = ("run", script, "--until", "end")
        for options in ((), (), ("--fresh",), ("--name", "another")):
            code, _, error = millstream(*command, *options, "--", "2")
            assert code == 0, error
        # The second run found nothing new, the others counted everything again.
        assert [count[2] for count in counts(log_directory)] == [2] * 3 + [1] * 3 + [2] * 3 + [
            1
        ] * 3

    def test_the_log_is_that_of_the_option(
        self, millstream: Command, script: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "empty").mkdir()
        code, _, error = millstream("run", script, "--log", tmp_path / "empty", "--", "2")
        assert code == 2
        assert f"{script}:6: no topic 'clicks' in the log '{tmp_path / 'empty'}'" in error

    def test_a_script_finds_what_lies_beside_it(self, millstream: Command, tmp_path: Path) -> None:
        (tmp_path / "beside.py").write_text("COLUMN = 'n'\n")
        script = tmp_path / "job.py"
        script.write_text("import beside\n" + JOB.replace('"{column}"', "beside.COLUMN"))
        path = list(sys.path)
        assert millstream("run", script, "--until", "end", "--", "2")[0] == 0
        assert sys.path == path

    def test_the_interval_of_checkpoints_is_a_duration(
        self, millstream: Command, script: Path
    ) -> None:
        options = ("--until", "end", "--checkpoint-interval")
        code, _, error = millstream("run", script, *options, "soon", "--", "2")
        assert code == 2
        assert "checkpoint_interval='soon' is no duration" in error
        assert millstream("run", script, *options, "50ms", "--", "2")[0] == 0

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            (("--worker-cpus", "-1"), "the command line: worker_cpus is a number of processors"),
            (("--start-timeout", "0s"), "the command line: start_timeout must be more than 0"),
            (("--worker-cpus", "1", "--on", "local"), "are for a job on Ray, and this one runs"),
            (("--start-timeout", "1s", "--on", "local"), "give --on ray too, or leave them out"),
        ],
    )
    def test_what_is_asked_of_ray_is_checked(
        self, millstream: Command, script: Path, options: tuple[str, ...], said: str
    ) -> None:
        code, _, error = millstream("run", script, *options, "--", "2")
        assert code == 2
        assert said in error


class TestEndings:
    def test_a_missing_script(self, millstream: Command, tmp_path: Path) -> None:
        code, _, error = millstream("run", tmp_path / "none.py")
        assert code == 2
        assert "no script" in error

    def test_a_script_without_a_job(self, millstream: Command, tmp_path: Path) -> None:
        script = tmp_path / "job.py"
        script.write_text("x = 1\n")
        code, _, error = millstream("run", script)
        assert code == 2
        assert "ran no job" in error

    def test_an_exception_of_the_script_is_shown_as_python_would(
        self, millstream: Command, tmp_path: Path
    ) -> None:
        script = tmp_path / "job.py"
        script.write_text("def divide(n):\n    return 1 / n\n\ndivide(0)\n")
        code, _, error = millstream("run", script)
        assert code == 1
        assert "ZeroDivisionError" in error
        assert error.count('File "') == 2
        assert "runpy" not in error

    def test_a_script_that_is_no_python(self, millstream: Command, tmp_path: Path) -> None:
        script = tmp_path / "job.py"
        script.write_text("flights = ms.stream(\n")
        code, _, error = millstream("run", script)
        assert code == 1
        assert f'  File "{script}", line 1' in error
        assert "SyntaxError" in error
        assert "runpy" not in error

    @pytest.mark.parametrize(
        ("argument", "code", "said"), [("7", 7, ""), ("", 0, ""), ("'no rows'", 1, "no rows\n")]
    )
    def test_the_scripts_own_exit_code_is_kept(
        self, millstream: Command, tmp_path: Path, argument: str, code: int, said: str
    ) -> None:
        script = tmp_path / "job.py"
        script.write_text(f"import sys\nsys.exit({argument})\n")
        assert millstream("run", script) == (code, "", said)
