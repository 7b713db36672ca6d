from __future__ import annotations

import pytest

from millstream.dsl.run_context import RunOverrides, current_overrides, override_run
from millstream.dsl.topics import resolved_log
from tests.dsl.known_topics import KnownTopics


def test_overrides_last_as_long_as_their_block() -> None:
    reason = "stop"
    outer, inner = RunOverrides(parallelism=2), RunOverrides(parallelism=3)
    with override_run(outer):
        with pytest.raises(ValueError, match="stop"), override_run(inner):
            assert current_overrides() is inner
            raise ValueError(reason)
        assert current_overrides() is outer
    assert current_overrides() == RunOverrides()


def test_the_command_lines_log_is_the_default_one(log: KnownTopics) -> None:
    given = KnownTopics("given")
    with override_run(RunOverrides(log=log)):
        assert resolved_log(None) is log
        assert resolved_log(given) is given
