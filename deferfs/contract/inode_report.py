"""Everything about one inode: what `deferfs stat DIR --inode INO --json` prints. Versioned as the statistics are."""

from __future__ import annotations

from typing import Annotated

import msgspec

from deferfs.contract.fields import Blocks, Bytes, Count, Flag, Number, Seconds, Text, Total, says
from deferfs.contract.statistics import check_schema
from deferfs.errors import ControlError


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """The record of the inode, as it is on disk or will be."""

    generation: Annotated[Number, says("generation of the inode number")]
    links: Annotated[Count, says("names that it has")]
    size_bytes: Annotated[Bytes, says("size of the file")]
    blocks: Annotated[Blocks, says("blocks that it holds")]
    orphan_slot: Annotated[Number | None, says("its slot of the orphan table; null: none")]


class References(msgspec.Struct, frozen=True, kw_only=True):
    """What keeps the in-core inode."""

    lookups: Annotated[Count, says("lookups that the kernel has not forgotten yet")]
    handles_and_operations: Annotated[Count, says("open handles, and operations under way")]
    passive: Annotated[Count, says("passive references: of queues and tables")]


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where it waits for inodegc."""

    number: Annotated[Number, says("number of the queue")]
    position: Annotated[Count, says("inodes before it")]


class InCore(msgspec.Struct, frozen=True, kw_only=True):
    """The in-core inode."""

    state: Annotated[Text, says("its [state](reclaim.md)")]
    generation: Annotated[Number, says("generation of the inode number")]
    references: References
    orphan: Annotated[Flag, says("whether it has no name any more")]
    blocks_past_eof: Annotated[Flag, says("whether it may have speculative blocks past EOF")]
    unwritten_access_time: Annotated[Flag, says("whether it owes an access time")]
    pending_blocks: Annotated[Blocks, says("blocks that its cleanup will free")]
    failures: Annotated[Total, says("failed cleanups")]
    queue: Place | None
    queued_seconds: Annotated[Seconds | None, says("for how long it has been queued; null: it is not")]
    retry_in_seconds: Annotated[Seconds | None, says("when a failed cleanup is tried again; null: none has failed")]


class InodeReport(msgspec.Struct, frozen=True, kw_only=True):
    """One inode number."""

    schema: Annotated[Number, says("version of the statistics")]
    inode: Annotated[Number, says("the inode number")]
    record: Record | None
    memory: InCore | None
    reasons: Annotated[list[str], says("why it is not freed: sentences, the decisive ones first")]


def decode_inode(answer: object, mountpoint: str) -> InodeReport:
    """What the daemon behind `mountpoint` has answered. ControlError, in one line, when it speaks another version."""
    check_schema(answer, mountpoint)
    try:
        return msgspec.convert(answer, InodeReport)
    except msgspec.ValidationError as error:
        raise ControlError(f"{mountpoint}: the daemon's report cannot be read: {error}") from None
