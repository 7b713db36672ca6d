"""Numbers as they may come over the wire: those that stored words can hold."""

from __future__ import annotations

from typing import Annotated

import msgspec

from millstream.log.frame_header import FLAG_CONTROL

INT64_MAX = 2**63 - 1

Integer = Annotated[int, msgspec.Meta(ge=-(2**63), le=INT64_MAX)]
Count = Annotated[int, msgspec.Meta(ge=0, le=INT64_MAX)]
Checksum = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
Flags = Annotated[int, msgspec.Meta(ge=0, le=FLAG_CONTROL)]
