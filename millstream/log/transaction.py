"""A user's transaction: appends to several topics that become visible together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from millstream.errors import FencedError, OptionError, TransactionError
from millstream.log.consumer import Positions
from millstream.log.producer import Producer
from millstream.log.row_extras import Headers, Timestamps
from millstream.log.transactions import GROUP_PARTICIPANT, Writer

if TYPE_CHECKING:
    from millstream.log.groups.consumer import GroupConsumer
    from millstream.log.log import Log

NUMBER = 1
"""Every transaction of a user has a writer, and so an epoch, of its own."""


class Transaction:
    """An open transaction; made by `Log.transaction`.

    Parameters
    ----------
    log
        Where it writes.
    writer
        Of an epoch that no other transaction has.
    """

    def __init__(self, log: Log, writer: Writer) -> None:
        self._log = log
        self._writer = writer
        self._producers: dict[str, Producer] = {}
        self._groups: set[str] = set()
        self._decided = False

    @property
    def is_open(self) -> bool:
        """`True` until it is committed or aborted."""
        return not self._decided

    def append(
        self,
        topic: str,
        rows: pa.RecordBatch | pa.Table,
        *,
        partition: int | None = None,
        timestamps: Timestamps | None = None,
        headers: Headers | None = None,
    ) -> None:
        """Append rows that become visible when the transaction commits; see `Producer.append`."""
        self._check_open()
        self._producer(topic).append(
            rows,
            partition=partition,
            transaction=NUMBER,
            timestamps=timestamps,
            headers=headers,
        )

    def delete(self, topic: str, keys: pa.RecordBatch | pa.Table) -> None:
        """Append tombstones; see `Producer.delete`."""
        self._check_open()
        self._producer(topic).delete(keys, transaction=NUMBER)

    def commit_offsets(
        self, group: GroupConsumer | str, positions: Positions | None = None
    ) -> None:
        """Let a group's offsets be committed with the rows: both, or neither.

        Parameters
        ----------
        group
            The consumer whose rows were worked on, of `auto_commit=False`; or the name of a
            group without members.
        positions
            Offset of the next row by partition; by default the consumer's: behind all rows that
            it polled.

        Raises
        ------
        FencedMemberError
            Where the consumer does not own one of the partitions any more: let the error end
            the transaction, and go on from `consumer.rewind()`.

        Examples
        --------
        >>> with log.transaction("billing") as transaction:  # doctest: +SKIP
        ...     transaction.append("invoices", invoices_of(consumer.poll()))
        ...     transaction.commit_offsets(consumer)
        """
        self._check_open()
        if not isinstance(group, str):
            group.commit_in(self._writer, NUMBER, positions)
            name = group.group
        else:
            if positions is None or any(isinstance(each, int) for each in positions):
                message = f"name the positions of group {group!r} by (topic, partition)"
                raise OptionError(message)
            offsets = {each: at for each, at in positions.items() if isinstance(each, tuple)}
            self._log.group(group).commit(offsets, self._writer, NUMBER)
            name = group
        self._groups.add(name)

    def commit(self) -> None:
        """Make the rows durable and visible, all at once; raises `FencedError`."""
        self._check_open()
        participants = [
            (topic, index)
            for topic, producer in self._producers.items()
            for index in producer.touched()
        ]
        participants += [(f"{GROUP_PARTICIPANT}{name}", 0) for name in sorted(self._groups)]
        for producer in self._producers.values():
            producer.flush()  # it knows of rows that were lost
        transactions = self._log.transactions
        transactions.prepare(self._writer, NUMBER, participants)
        transactions.decide(self._writer, NUMBER, "commit")
        self._decided = True

    def abort(self) -> None:
        """Take the rows back; nobody has seen them. Does nothing once it is decided."""
        if self._decided:
            return
        self._decided = True
        try:
            self._log.transactions.decide(self._writer, NUMBER, "abort")
        except FencedError:
            return  # a later life of the owner has aborted it

    def _producer(self, topic: str) -> Producer:
        found = self._producers.get(topic)
        if found is None:
            found = self._producers[topic] = self._log.producer(topic, writer=self._writer)
        return found

    def _check_open(self) -> None:
        if self._decided:
            message = f"the transaction of {self._writer.owner!r} is decided; begin another one"
            raise TransactionError(message)
