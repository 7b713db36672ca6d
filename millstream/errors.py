"""Every exception that Millstream raises on purpose, as one tree.

An error of the user's (a wrong name, type, option or file) derives from `UserError`, so
the command line ends with exit code 2 and one readable message. Input errors also inherit
the built-in that a Python user would catch (`KeyError`, `TypeError`, `ValueError`).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MillstreamError(Exception):
    """Base of every error that Millstream raises on purpose."""

    def __str__(self) -> str:
        # KeyError's own __str__ shows the repr of its argument; ours are sentences.
        return str(self.args[0]) if self.args else ""


class UserError(MillstreamError):
    """Base of errors whose remedy is in the user's hands: a name, a type, an option, a file."""


class UnknownTopicError(UserError, KeyError):
    """Raised when a topic does not exist in the log."""


class TopicExistsError(UserError, ValueError):
    """Raised when a topic is created under a name that is taken."""


class InvalidTopicError(UserError, ValueError):
    """Raised when a topic's name, schema or options cannot be used."""


class SchemaMismatchError(UserError, TypeError):
    """Raised when rows do not have the schema of the topic they are appended to."""


class OversizedRowError(UserError, ValueError):
    """Raised when a row is larger than its topic's setting `max.message.bytes` allows."""


class UnknownColumnError(UserError, KeyError):
    """Raised when an expression or operator names a column its input does not have."""


class ExpressionTypeError(UserError, TypeError):
    """Raised when an expression's operand types do not fit its operation."""


class PlanError(UserError, ValueError):
    """Raised when a job cannot be built as written, e.g. a window without a time column."""


class OptionError(UserError, ValueError):
    """Raised when an option of a run, a topic or a command has a value that cannot be used."""


class MissingExtraError(UserError, ImportError):
    """Raised when a feature needs an optional extra that is not installed."""


class LogError(MillstreamError):
    """Base of failures of the log itself."""


class CorruptSegmentError(LogError, UserError):
    """Raised when stored bytes fail their checksum; names topic, partition, file and offset."""


class LinkedPathError(LogError, UserError):
    """Raised when a folder or file of a log is a symbolic link, which may lead out of the log."""


class FencedError(LogError, UserError):
    """Raised when a writer's epoch was superseded by a newer attempt of the same owner."""


class FencedMemberError(FencedError):
    """Raised when a member commits what it does not own in its group, or no longer."""


class InvalidGroupError(UserError, ValueError):
    """Raised when a group or a member has a name that cannot be used."""


class UnknownGroupError(UserError, KeyError):
    """Raised when a group does not exist in the log."""


class GroupActiveError(LogError, UserError):
    """Raised when a group is changed from outside while it has living members."""


class NoCommittedOffsetError(LogError, UserError):
    """Raised when a group has committed nothing, and its consumer was told not to choose."""


class SequenceError(LogError):
    """Raised when a named producer's append does not follow on what the log has of it."""


class LostRowsError(LogError):
    """Raised when rows that were appended, but not synced yet, were lost with a failed sync."""


class LockTimeoutError(LogError):
    """Raised when a lock was not free in time; names the process that holds it."""


class OffsetOutOfRangeError(LogError, ValueError):
    """Raised when a read starts before the first or beyond the last readable offset."""


class PartitionClosedError(LogError):
    """Raised when rows are appended to a partition of a generation that was closed.

    Producers refresh their topic and split the rows anew; they raise it where that did not help.
    """


class BackupError(LogError, UserError):
    """Raised when a backup is missing, damaged or of a newer version."""


class MirrorError(LogError, UserError):
    """Raised when rows are written to a log that is a mirror of another one."""


class TransactionError(LogError):
    """Raised when a transaction is used in a state that does not allow it."""


class RemoteLogError(LogError):
    """Raised when a served log could not be reached in time; names its address."""


class ProtocolError(LogError):
    """Raised when client and server of a log do not understand each other."""


class AuthenticationError(LogError, UserError):
    """Raised when a served log refuses a client's token, or its certificate is not trusted."""


class JobError(MillstreamError):
    """Raised when a running job failed; names the operator and, where known, the row.

    Parameters
    ----------
    *args
        The message.
    operator, worker
        Where it failed, as far as known.
    """

    def __init__(
        self, *args: object, operator: str | None = None, worker: int | None = None
    ) -> None:
        super().__init__(*args)
        self.operator = operator
        self.worker = worker


class RowError(JobError):
    """Raised when a row of a running job cannot be computed; shows it.

    Parameters
    ----------
    *args
        The message.
    position
        Where the row was read, as `operators.position` writes it, where that is known.
    place
        The same as a text, where it need not be looked for.
    """

    def __init__(
        self, *args: object, position: int | None = None, place: str | None = None
    ) -> None:
        super().__init__(*args)
        self.position = position
        self.place = place


class JobCancelledError(JobError):
    """Raised when a running job was cancelled; what it had not committed was taken back."""


class ExchangeError(JobError):
    """Raised when a stream from worker to worker broke, mostly because one of them is gone."""


class ResourcesError(JobError, UserError):
    """Raised when a cluster found no room for a job's workers in time."""


class SpillError(JobError, UserError):
    """Raised when state beyond the memory budget cannot be kept on disk, e.g. a full one."""


class CheckpointError(JobError):
    """Raised when a checkpoint cannot be taken, or a file of it is missing or damaged."""


class PythonFallbackWarning(UserWarning):
    """Given once for each function that Python calls for every row; says why it is not compiled."""


class UnboundedStateWarning(UserWarning):
    """Given where an operator keeps something of every key that ever came, and nobody said so."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the tail of an error message that lists the names closest to `name`.

    Examples
    --------
    >>> nearest("flihgts", ["flights", "planes"])
    "; did you mean 'flights'?"
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        return "; did you mean " + " or ".join(repr(match) for match in close) + "?"
    if not names:
        return "; there are none"
    shown = ", ".join(repr(each) for each in names[:10])
    return f"; there are: {shown}" + (", …" if len(names) > 10 else "")
