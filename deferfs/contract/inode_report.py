"""The report on one inode, printed by `deferfs stat DIR --inode INO --json`. Versioned with the statistics."""

from __future__ import annotations

from typing import Annotated

import msgspec

from deferfs.contract.fields import Blocks, Bytes, Count, Flag, Number, Seconds, Text, Total, says
from deferfs.contract.statistics import check_schema
from deferfs.errors import ControlError


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """The record of the inode, on disk or in the cache."""

    generation: Annotated[Number, says("generation of the inode number")]
    links: Annotated[Count, says("number of hard links")]
    size_bytes: Annotated[Bytes, says("size of the file")]
    blocks: Annotated[Blocks, says("blocks that it holds")]
    orphan_slot: Annotated[Number | None, says("its slot of the orphan table; null: none")]


class References(msgspec.Struct, frozen=True, kw_only=True):
    """References to the in-core inode."""

    lookups: Annotated[Count, says("lookups that the kernel has not forgotten")]
    handles_and_operations: Annotated[Count, says("open handles, and operations under way")]
    passive: Annotated[Count, says("passive references: of queues and tables")]


class QueuePosition(msgspec.Struct, frozen=True, kw_only=True):
    """Its position in a queue of inodegc."""

    number: Annotated[Number, says("number of the queue")]
    position: Annotated[Count, says("inodes before it")]


class InCore(msgspec.Struct, frozen=True, kw_only=True):
    """The in-core inode."""

    state: Annotated[Text, says("its [state](reclaim.md)")]
    generation: Annotated[Number, says("generation of the inode number")]
    references: References
    orphan: Annotated[Flag, says("whether it is deleted (no name left)")]
    blocks_past_eof: Annotated[Flag, says("whether it may have speculative blocks past EOF")]
    unwritten_access_time: Annotated[Flag, says("whether it owes an access time")]
    pending_blocks: Annotated[Blocks, says("blocks that its cleanup will free")]
    failures: Annotated[Total, says("failed cleanups")]
    queue: QueuePosition | None
    queued_seconds: Annotated[Seconds | None, says("for how long it has been queued; null: it is not")]
    retry_in_seconds: Annotated[Seconds | None, says("when a failed cleanup is tried again; null: none has failed")]


class InodeReport(msgspec.Struct, frozen=True, kw_only=True):
    """One inode number."""

    schema: Annotated[Number, says("version of the statistics")]
    inode: Annotated[Number, says("the inode number")]
    record: Record | None
    memory: InCore | None
    reasons: Annotated[list[str], says("why it has not been freed: sentences, the decisive ones first")]


def decode_inode(answer: object, mountpoint: str) -> InodeReport:
    """Decode the answer of the daemon behind `mountpoint`. ControlError, in one line, for another version."""
    check_schema(answer, mountpoint)
    try:
        return msgspec.convert(answer, InodeReport)
    except msgspec.ValidationError as error:
        raise ControlError(f"{mountpoint}: the daemon's report cannot be read: {error}") from None
