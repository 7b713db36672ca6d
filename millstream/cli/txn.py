"""`millstream txn`: transactions that are not decided, and deciding them by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import msgspec
import typer

from millstream.cli.console import notes, out, plain_table, print_table, time_text
from millstream.cli.options import LogOption, open_log
from millstream.errors import OptionError, nearest

if TYPE_CHECKING:
    from millstream.log import Log

app = typer.Typer(
    help="List transactions that are not decided; commit or abort one.", no_args_is_help=True
)

OwnerArgument = Annotated[str, typer.Argument(help="Who began it.", metavar="OWNER")]
NumberArgument = Annotated[int, typer.Argument(help="Its number.", metavar="NUMBER")]


class Undecided(NamedTuple):
    """A transaction that holds readers back, or would."""

    owner: str
    owner_id: int
    epoch: int
    number: int
    state: Literal["open", "prepared"]
    since_us: int
    places: list[str]


@app.command("list")
def list_transactions(
    *,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    log: LogOption = None,
) -> None:
    """List transactions that are prepared, and open ones that hold readers back."""
    opened = open_log(log)
    found = undecided(opened)
    if json:
        content = msgspec.json.encode([each._asdict() for each in found]).decode()
        out.print(content, markup=False, soft_wrap=True)
        return
    if not found:
        notes.print(f"no undecided transactions in {opened.path}", markup=False, soft_wrap=True)
        return
    table = plain_table()
    for heading in ("owner", "epoch", "number", "state", "since (UTC)", "partitions"):
        table.add_column(heading, no_wrap=True)
    for each in found:
        table.add_row(
            each.owner,
            f"{each.epoch}",
            f"{each.number}",
            each.state,
            time_text(each.since_us),
            " ".join(each.places),
        )
    print_table(table)


@app.command("commit")
def commit(owner: OwnerArgument, number: NumberArgument, log: LogOption = None) -> None:
    """Commit a prepared transaction, in place of its owner; all of its rows are visible then.

    A job does not learn of it: it writes the rows again when it runs on.
    """
    _decide(open_log(log), owner, number, "commit")


@app.command("abort")
def abort(owner: OwnerArgument, number: NumberArgument, log: LogOption = None) -> None:
    """Abort a transaction, prepared or open: its rows are never visible."""
    _decide(open_log(log), owner, number, "abort")


def undecided(log: Log) -> list[Undecided]:
    """Return the transactions that are prepared, and those that stop a reader of some topic."""
    found: dict[tuple[str, int, int], Undecided] = {}
    for each in log.transactions.prepared():
        writer = each.writer
        found[writer.owner, writer.epoch, each.number] = Undecided(
            writer.owner, writer.owner_id, writer.epoch, each.number, "prepared", each.since_us,
            [f"{topic}/{partition}" for topic, partition in each.participants],
        )  # fmt: skip
    for name in log.topic_names():
        topic = log.topic(name)
        for generation, index in topic.places():
            header = topic.blocking_header(index, generation)
            if header is None:
                continue
            owner = log.transactions.owner(header.owner_id)
            key = owner, header.epoch, header.transaction
            if key not in found:
                found[key] = Undecided(
                    owner, header.owner_id, header.epoch, header.transaction, "open",
                    header.appended_us, [],
                )  # fmt: skip
            place = f"{name}/{index}"
            if place not in found[key].places:
                found[key].places.append(place)
    return sorted(found.values())


def _decide(log: Log, owner: str, number: int, outcome: Literal["commit", "abort"]) -> None:
    found = undecided(log)
    wanted = [each for each in found if (each.owner, each.number) == (owner, number)]
    if not wanted:
        known = [f"{each.owner} {each.number}" for each in found]
        message = (
            f"no undecided transaction {number} of {owner!r} in {log.path}"
            f"{nearest(f'{owner} {number}', known)}"
        )
        raise OptionError(message)
    (each,) = wanted
    if outcome == "commit" and each.state == "open":
        message = (
            f"transaction {number} of {owner!r} is open, not prepared: its writer may write more, "
            "and what it wrote may not be durable; it can only be aborted"
        )
        raise OptionError(message)
    from millstream.log.transactions import Writer

    writer = Writer(each.owner, each.owner_id, each.epoch)
    log.transactions.decide(writer, number, outcome)
    done = "committed" if outcome == "commit" else "aborted"
    notes.print(f"{done} transaction {number} of {owner}", markup=False, soft_wrap=True)
