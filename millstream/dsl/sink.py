"""Sinks: where a stream ends, and what `run` takes."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from millstream.dsl.location import user_location
from millstream.errors import OptionError
from millstream.plan import nodes

if TYPE_CHECKING:
    from millstream.log import Log
    from millstream.plan.explain import Explanation

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True, slots=True)
class Sink:
    """The end of a stream: its rows go to a topic. Made by `stream.to(…)`, run by `ms.run`.

    Parameters
    ----------
    node
        The plan's root.
    log
        The log that the job reads and writes.
    """

    node: nodes.Sink
    log: Log

    @property
    def topic(self) -> str:
        """The name of the topic that is written."""
        return self.node.topic

    def named(self, name: str) -> Sink:
        """Give the sink a name, by which it is known after the job changed."""
        location = user_location()
        return replace(self, node=replace(self.node, name=checked_name(name, location)))

    def explain(self, *, counters: bool = False, parallelism: int | None = None) -> Explanation:
        """Return what a job of this sink would do; in a notebook it draws.

        Parameters
        ----------
        counters
            Whether to show what each operator did when the sink was last run: then the
            whole job is shown as it ran.
        parallelism
            For how many workers; by default as many as the largest source has partitions.
        """
        from millstream.dsl import job

        return job.explain([self.node], counters, parallelism, user_location())

    def __repr__(self) -> str:
        return f"sink to {self.node.topic!r}"

    def _repr_html_(self) -> str:
        return self.explain()._repr_html_()


def checked_name(name: str, location: str) -> str:
    """Return `name` if it can be the name of a job or an operator.

    Raises
    ------
    OptionError
        When it cannot: names become parts of file names.
    """
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        message = (
            f"{location}: {name!r} cannot be a name; use up to 100 letters, digits and _ . - "
            "(not first)"
        )
        raise OptionError(message)
    return name
