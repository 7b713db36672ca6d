"""A topic as a data set of pyarrow, which query engines push columns and conditions into.

DuckDB, Polars and pyarrow call `scanner(columns=…, filter=…)` and read what comes, once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset

from millstream.errors import OptionError
from millstream.log.scan import Scan

if TYPE_CHECKING:
    from millstream.log.topic import Topic


class TopicDataset(pyarrow.dataset.Dataset):  # type: ignore[misc]  # pyarrow has no types
    """The committed rows of a topic; each scan sees what is there when it begins.

    Parameters
    ----------
    topic
        What is read. Each scan opens it anew, for it may run in a thread of the engine's.
    """

    def __init__(self, topic: Topic) -> None:
        self._topic = topic

    @property
    def schema(self) -> pa.Schema:
        """The topic's columns."""
        return self._topic.schema

    def scanner(
        self,
        columns: Sequence[str] | None = None,
        filter: pc.Expression | None = None,  # noqa: A002  # as pyarrow calls it
        **options: Any,
    ) -> pyarrow.dataset.Scanner:
        """Return a scanner of some columns of the rows for which `filter` is true.

        Raises
        ------
        OptionError
            Where columns are to be computed: select and compute in the engine.
        """
        if isinstance(columns, dict):
            message = f"a topic is read by the names of its columns; got the expressions {columns}"
            raise OptionError(message)
        names = self.schema.names if columns is None else list(columns)
        if not names:
            # To count rows, some column must be read: the first that has a width is as good.
            names = self.schema.names[:1]
        reader = Scan(names, filter).reader(self._topic.reopened())
        return pyarrow.dataset.Scanner.from_batches(reader)
