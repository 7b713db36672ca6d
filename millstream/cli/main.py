"""The command line: every command, and how an error ends it.

Exit codes: 0 well, 1 a job or the machine failed, 2 something the user can put right.
"""

from __future__ import annotations

import os
import sys

import typer
from rich.markup import escape

from millstream.cli import consume, dlq, groups, jobs, log, produce, run, topics, txn
from millstream.cli.console import notes
from millstream.cli.demo import command as demo
from millstream.errors import MillstreamError, UserError

USER_ERROR_CODE = 2
FAILURE_CODE = 1

app = typer.Typer(
    help="Millstream: an event streaming platform in Python.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("demo", short_help="Stream a year of flights and check the result.")(demo.demo)
app.command("run")(run.run)
app.add_typer(topics.app, name="topics")
app.add_typer(jobs.app, name="jobs")
app.add_typer(groups.app, name="groups")
app.add_typer(txn.app, name="txn")
app.add_typer(dlq.app, name="dlq")
app.add_typer(log.app, name="log")
app.command("produce", short_help="Append rows from a file or a pipe.")(produce.produce)
app.command("consume")(consume.consume)


def main() -> None:
    """Run the command line: the entry point `millstream`."""
    sys.exit(invoke(sys.argv[1:]))


def invoke(arguments: list[str]) -> int:
    """Run one command and return its exit code; errors become one message each."""
    try:
        app(arguments, prog_name="millstream")
    except UserError as error:
        _print_error(error)
        return USER_ERROR_CODE
    except MillstreamError as error:
        _print_error(error)
        return FAILURE_CODE
    except BrokenPipeError:
        # The reader of our output is gone (`| head`): nobody is left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURE_CODE
    except OSError as error:
        _print_error(error)
        return FAILURE_CODE
    except SystemExit as stop:
        return _exit_code(stop)
    return 0


def _exit_code(stop: SystemExit) -> int:
    """Return the code that Python would end with; a script may give a text instead."""
    if stop.code is None:
        return 0
    if isinstance(stop.code, int):
        return stop.code
    notes.print(stop.code, markup=False, soft_wrap=True)
    return FAILURE_CODE


def _print_error(error: Exception) -> None:
    notes.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
