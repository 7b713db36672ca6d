"""A compacted segment that was cut between two frames is damaged, not shorter."""

from __future__ import annotations

import pytest

from millstream.errors import CorruptSegmentError
from millstream.log.backup import back_up
from millstream.log.check.repair import repair
from millstream.log.check.verify import verify
from tests.log.log_kit import SCHEMA, another, ids_of, memory, memory_log, put

PATH = "/log/topics/00000001/0/0/00000000000000000000.arrows"


def test_it_is_told_and_repaired() -> None:
    log = memory_log()
    log.create_topic("a", SCHEMA, key=["id"], config={"cleanup.policy": "compact"})
    put(log, "a", [*range(8), *range(8)])
    topic = log.topic("a")
    topic.partition(0).roll()
    log.clean("a")
    back_up(log, "/spare")
    (_, segment), *_ = topic.partition(0).mapped_segments()[1]
    assert segment.head.compacted_end == 16
    content = memory(log).read_file(PATH)
    memory(log).write_file(PATH, content[: segment.head.size_bytes])
    with pytest.raises(CorruptSegmentError, match="it had the rows up to 16"):
        another(log).topic("a").to_arrow()
    (verdict,) = verify(another(log), "a")
    assert [(each.offset, each.until) for each in verdict.findings] == [(0, None)]
    (planned,) = repair(another(log), "a", dry_run=True)
    assert planned.lost == [(0, 16)]
    (done,) = repair(another(log), "a", place="/spare")
    assert done.lost == []
    assert sorted(ids_of(another(log).topic("a").to_arrow())) == list(range(8))
