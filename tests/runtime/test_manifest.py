"""The manifest: JSON that is read back as it was written, or refused by name."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.errors import CheckpointError
from millstream.runtime.manifest import (
    VERSION,
    Manifest,
    PartitionState,
    SourceState,
    StateFile,
    decode_manifest,
    encode_manifest,
)

NUMBERS = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(max_size=5)
POSITIONS = st.builds(PartitionState, NUMBERS, NUMBERS)
MANIFESTS = st.builds(
    Manifest,
    job=TEXT,
    run=TEXT,
    epoch=st.integers(1, 2**40),
    checkpoint=st.integers(1, 2**40),
    parallelism=st.integers(1, 4096),
    finished=st.booleans(),
    sources=st.dictionaries(
        TEXT,
        st.builds(
            SourceState,
            topic=TEXT,
            topic_id=TEXT,
            ends=st.none() | st.lists(NUMBERS, max_size=3).map(tuple),
            bounds=st.none() | st.lists(NUMBERS, max_size=3).map(tuple),
            partitions=st.dictionaries(st.integers(0, 4095).map(str), POSITIONS, max_size=2),
        ),
        max_size=2,
    ),
    operators=st.dictionaries(
        TEXT,
        st.lists(
            st.builds(
                StateFile,
                worker=st.integers(0, 4095),
                checkpoint=st.integers(1, 9),
                path=st.none() | TEXT,
                size_bytes=st.integers(0, 2**40),
                crc=st.integers(0, 2**32 - 1),
                full=st.booleans(),
                version=st.just(1),
                values=st.dictionaries(TEXT, NUMBERS | TEXT | st.none(), max_size=2),
            ),
            max_size=2,
        ).map(tuple),
        max_size=2,
    ),
)


@settings(max_examples=50)
@given(MANIFESTS)
def test_it_is_read_as_it_was_written(manifest: Manifest) -> None:
    assert decode_manifest(encode_manifest(manifest), "job") == manifest


def changed(**changes: Any) -> bytes:
    content: dict[str, Any] = {
        "job": "job",
        "run": "job-1",
        "epoch": 1,
        "checkpoint": 3,
        "parallelism": 2,
        "finished": False,
        "sources": {},
        "operators": {},
        "version": VERSION,
    }
    content |= changes
    return msgspec.json.encode({k: v for k, v in content.items() if v is not None})


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (changed(version=VERSION + 1), f"is of version {VERSION + 1}, and this is {VERSION}"),
        (changed(epoch="one"), "cannot be understood"),
        (changed(checkpoint=None), "cannot be understood"),
        (b"[]", "cannot be understood"),
        (b"{", "cannot be understood"),
    ],
)
def test_what_cannot_be_understood_is_refused_by_the_jobs_name(content: bytes, reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason) as raised:
        decode_manifest(content, "hours")
    assert "job 'hours'" in str(raised.value)
    assert "--fresh" in str(raised.value)


def test_what_a_later_version_adds_is_left_aside() -> None:
    assert decode_manifest(changed(more=1), "job").checkpoint == 3


def test_paths_are_those_of_all_files_that_have_one() -> None:
    def file(path: str | None) -> StateFile:
        return StateFile(0, 1, path, 0, 0, True, 1, {})

    manifest = decode_manifest(changed(), "job")
    manifest = msgspec.structs.replace(
        manifest, operators={"a": (file("x"), file(None)), "b": (file("y"), file("x"))}
    )
    assert manifest.paths() == {"x", "y"}
