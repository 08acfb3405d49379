"""File data: read, write, truncate, trim.

**Invariants**
- On disk, the bytes of the last block past EOF are undefined; an operation that moves EOF up zeroes them first.
- A block that a durable state refers to is never zeroed in place: a truncate into the middle of a block copies the
  remaining bytes to a fresh block. Hence fsynced data is exact after a crash.
- A block gets its data before the transaction that maps it commits (ordered data).
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Iterator
from typing import NamedTuple

from deferfs.device.base import Buffer
from deferfs.errors import CorruptionError, FsError
from deferfs.limits import FILE_BYTES_MAX, PREALLOCATE_BYTES_MAX, PREALLOCATE_START_BYTES, SYMLINK_BYTES_MAX
from deferfs.ondisk.inode import (
    FLAG_PREALLOCATED,
    FLAG_TRUNCATING,
    FORM_BYTES,
    FORM_EXTENTS,
    FORM_NONE,
    Inode,
)
from deferfs.store import extents
from deferfs.store.extents import Mapping
from deferfs.store.plan import Plan
from deferfs.volume.inactivation import trim as trim_record
from deferfs.volume.volume import Volume, inode_of


class Piece(NamedTuple):
    """A part of a read: `length` bytes at device offset `offset`, or zeros when that is None."""

    offset: int | None
    length: int


class ReadPlan(NamedTuple):
    """The source of the bytes: `inline`, or the pieces in order. `epoch` as in `FreeSpace.epoch`."""

    record: Inode
    inline: bytes | None
    pieces: list[Piece]
    epoch: int


def _file_of(plan: Plan, ino: int) -> Inode:
    record = inode_of(plan, ino)
    if stat.S_ISDIR(record.mode):
        raise FsError(errno.EISDIR)
    if not stat.S_ISREG(record.mode):
        raise FsError(errno.EINVAL)
    return record


def read(plan: Plan, volume: Volume, ino: int, offset: int, length: int) -> ReadPlan:
    """Plan a read of bytes [offset, offset + length), cut at EOF. EISDIR."""
    record = inode_of(plan, ino)
    if stat.S_ISDIR(record.mode):
        raise FsError(errno.EISDIR)
    length = max(0, min(length, record.size - offset))
    epoch = plan.store.space.epoch
    if not length:
        return ReadPlan(record, b"", [], epoch)
    if record.form in (FORM_NONE, FORM_BYTES):
        return ReadPlan(record, record.inline[offset : offset + length].ljust(length, b"\0"), [], epoch)
    size = plan.store.fmt.block_size
    first, end = offset // size, -(-(offset + length) // size)
    pieces: list[Piece] = []
    for mapping in extents.map_range(plan, record, first, end - first):
        low = max(offset, mapping.logical * size)
        high = min(offset + length, mapping.end * size)
        if mapping.physical and not mapping.unwritten:
            pieces.append(Piece(mapping.physical * size + low - mapping.logical * size, high - low))
        else:
            pieces.append(Piece(None, high - low))
    return ReadPlan(record, None, pieces, epoch)


def readlink(plan: Plan, volume: Volume, ino: int) -> ReadPlan:
    """The target of a symbolic link. EINVAL for any other inode."""
    record = inode_of(plan, ino)
    if not stat.S_ISLNK(record.mode):
        raise FsError(errno.EINVAL)
    if record.size > SYMLINK_BYTES_MAX:
        raise CorruptionError(f"symlink {ino} of {record.size} bytes")
    return read(plan, volume, ino, 0, record.size)


def write(plan: Plan, volume: Volume, ino: int, offset: int, data: Buffer, fresh_max: int = -1) -> int:
    """Write bytes at `offset`; returns how many, possibly fewer than asked (even 0): call again for the rest.

    A write is short while an earlier truncate still has blocks to free, when it touches more extents than fit into one
    transaction, or when the file would outgrow its limit: then EFBIG comes for the rest. ENOSPC when there is no space
    for all of it. `fresh_max` bounds the number of newly allocated data blocks: the write then covers what fits into
    these, and ENOSPC means that not one byte fits; see `fresh_blocks_to_try`.
    """
    _file_of(plan, ino)
    if offset >= FILE_BYTES_MAX:
        raise FsError(errno.EFBIG)
    if offset + len(data) > FILE_BYTES_MAX:
        data = memoryview(data)[: FILE_BYTES_MAX - offset]
    length = len(data)
    record = plan.store.inodes.modify(plan, ino)
    if record.flags & FLAG_TRUNCATING and offset + length > record.size and not trim_record(plan, record):
        return 0
    if not length:
        _changed(plan, volume, record)
        return 0
    end = offset + length
    if record.form in (FORM_NONE, FORM_BYTES) and end <= record.inline_capacity():
        inline = record.inline[:offset].ljust(offset, b"\0") + bytes(data) + record.inline[end:]
        record.set_inline(inline)
        written = length
    else:
        offset, data, skip = _leave_inline(plan, record, offset, data)
        written = _Writer(plan, volume, record, offset, data, fresh_max).run()
        end = offset + written
        written = max(0, written - skip)
    if end > record.size:
        record.size = end
    plan.data_sync.add(ino)
    _changed(plan, volume, record)
    return written


def fresh_blocks_to_try(volume: Volume) -> Iterator[int]:
    """After ENOSPC: values of `fresh_max` to retry the write with until it succeeds, as POSIX wants a partial write
    when some bytes fit. All free blocks first, then fewer, because the extent tree may have to grow, too."""
    left = volume.store.space.available
    while left:
        yield left
        left //= 2
    yield 0


def _changed(plan: Plan, volume: Volume, record: Inode) -> None:
    """Update mtime and ctime after a change of content, unless the kernel keeps them (`Volume.content_times`)."""
    if volume.content_times:
        record.mtime = record.ctime = plan.now()


def _leave_inline(plan: Plan, record: Inode, offset: int, data: Buffer) -> tuple[int, Buffer, int]:
    """Move inline bytes to block 0, together with `data` if that lies in the same block.

    Returns the remaining write, and how many of its first bytes the caller did not ask for.
    """
    if record.form not in (FORM_NONE, FORM_BYTES):
        return offset, data, 0
    inline = record.inline
    record.set_entries(FORM_EXTENTS, ())
    if not inline:
        return offset, data, 0
    size = plan.store.fmt.block_size
    if offset < size:
        merged = inline[:offset].ljust(offset, b"\0") + bytes(data) + inline[offset + len(data) :]
        return 0, merged, offset
    first, _ = plan.allocate(0, 1)
    extents.insert(plan, record, Mapping(0, first, 1, False))
    plan.data_writes.append((first * size, inline.ljust(size, b"\0")))
    return offset, data, 0


class _Writer:
    """One write to a file that has extents."""

    def __init__(self, plan: Plan, volume: Volume, record: Inode, offset: int, data: Buffer, fresh_max: int) -> None:
        self.limited = fresh_max >= 0
        self.fresh_left = fresh_max
        self.plan = plan
        self.volume = volume
        self.record = record
        self.offset = offset
        self.end = offset + len(data)
        self.data = memoryview(data)
        self.size = plan.store.fmt.block_size
        self.credits_max = plan.store.operation_blocks_max

    def run(self) -> int:
        """Plan the write, or as much of it as one transaction and `fresh_max` allow; bytes covered."""
        size = self.size
        zero_tail(self.plan, self.record, self.offset)
        first = self.offset // size
        last = -(-self.end // size)
        for mapping in extents.map_range(self.plan, self.record, first, last - first):
            at = mapping
            while at.length:
                done = self._piece(at)
                if not done:
                    if at.logical == first:
                        raise FsError(errno.ENOSPC)
                    return at.logical * size - self.offset
                at = Mapping(
                    at.logical + done, at.physical + done if at.physical else 0, at.length - done, at.unwritten
                )
                if len(self.plan.staged) >= self.credits_max:
                    return min(self.end, at.logical * size) - self.offset
        return self.end - self.offset

    def _piece(self, mapping: Mapping) -> int:
        """Write to one mapping (or part of a hole); blocks covered, 0 when no block is left for a hole."""
        size = self.size
        if mapping.physical and not mapping.unwritten:
            low = max(self.offset, mapping.logical * size)
            high = min(self.end, mapping.end * size)
            position = mapping.physical * size + low - mapping.logical * size
            self.plan.data_writes.append((position, self.data[low - self.offset : high - self.offset]))
            return mapping.length
        if mapping.physical:
            extents.mark_written(self.plan, self.record, mapping.logical, mapping.length)
            self._fresh(mapping)
            return mapping.length
        want = min(mapping.length, self.fresh_left) if self.limited else mapping.length + self._preallocation(mapping)
        if not want:
            return 0
        first, length = self.plan.allocate(self._goal(mapping.logical), want)
        if self.limited:
            self.fresh_left -= length
        used = Mapping(mapping.logical, first, min(length, mapping.length), False)
        extents.insert(self.plan, self.record, used)
        self._fresh(used)
        if length > used.length:
            extents.insert(self.plan, self.record, Mapping(used.end, first + used.length, length - used.length, True))
            self.record.flags |= FLAG_PREALLOCATED
            self.plan.on_apply.append(lambda: self.volume.note_past_eof(self.record.ino))
        return used.length

    def _fresh(self, mapping: Mapping) -> None:
        """Data of newly allocated blocks: zeros where the write does not cover them."""
        size = self.size
        start, end = mapping.logical * size, mapping.end * size
        low, high = max(self.offset, start), min(self.end, end)
        position = mapping.physical * size
        writes = self.plan.data_writes
        if low > start:
            writes.append((position, bytes(low - start)))
        writes.append((position + low - start, self.data[low - self.offset : high - self.offset]))
        if high < end:
            writes.append((position + high - start, bytes(end - high)))

    def _goal(self, logical: int) -> int:
        """Allocation goal: the block after the preceding one, or 0 for anywhere."""
        if not logical:
            return 0
        before = extents.map_range(self.plan, self.record, logical - 1, 1)[0]
        return before.physical + 1 if before.physical else 0

    def _preallocation(self, mapping: Mapping) -> int:
        """Blocks to preallocate past EOF for a file that grows sequentially, while there is plenty of space.

        At most as many as are contiguous right before them, so that a sparse file gets few: blocks that a jump past
        EOF leaves behind stay allocated.
        """
        record, size, space = self.record, self.size, self.plan.store.space
        if record.size < PREALLOCATE_START_BYTES or mapping.end * size < max(self.end, record.size):
            return 0
        last = extents.last_mapping(self.plan, record)
        if last is None or last.end != mapping.logical:
            return 0
        plenty = space.free_blocks - mapping.length - space.blocks // 10
        return max(0, min(last.length, min(record.size // 2, PREALLOCATE_BYTES_MAX) // size, plenty))


def zero_tail(plan: Plan, record: Inode, new_end: int) -> None:
    """Before EOF moves past `new_end` > size: zero the undefined bytes of the last block up to there."""
    size = plan.store.fmt.block_size
    inside = record.size % size
    if not inside or new_end <= record.size or record.form in (FORM_NONE, FORM_BYTES):
        return
    tail = extents.map_range(plan, record, record.size // size, 1)[0]
    if tail.physical and not tail.unwritten:
        high = min(size, inside + new_end - record.size)
        plan.data_writes.append((tail.physical * size + inside, bytes(high - inside)))


def truncate(plan: Plan, volume: Volume, ino: int, length: int) -> bool:
    """Set the size. False when blocks past the new EOF remain to be freed: call again. EFBIG."""
    _file_of(plan, ino)
    if length > FILE_BYTES_MAX:
        raise FsError(errno.EFBIG)
    record = plan.store.inodes.modify(plan, ino)
    plan.data_sync.add(ino)
    if record.size == length and not record.flags & FLAG_TRUNCATING:
        _changed(plan, volume, record)
        return True
    if record.flags & FLAG_TRUNCATING and not trim_record(plan, record):
        return False
    if length > record.size:
        zero_tail(plan, record, length)
        record.size = length
        _changed(plan, volume, record)
        return True
    if record.form in (FORM_NONE, FORM_BYTES):
        if record.form == FORM_BYTES:
            record.set_inline(record.inline[:length])
        record.size = length
        _changed(plan, volume, record)
        return True
    plan.reserve = True
    _copy_tail(plan, record, length)
    record.size = length
    _changed(plan, volume, record)
    record.flags |= FLAG_TRUNCATING
    plan.on_apply.append(lambda: volume.note_past_eof(ino))
    return trim_record(plan, record)


def _copy_tail(plan: Plan, record: Inode, length: int) -> None:
    """Copy the remaining bytes of the block that the new EOF cuts to a fresh block."""
    size = plan.store.fmt.block_size
    inside = length % size
    if not inside:
        return
    tail = extents.map_range(plan, record, length // size, 1)[0]
    if not tail.physical or tail.unwritten:
        return
    data = plan.data(tail.physical * size, inside)
    fresh, _ = plan.allocate(tail.physical, 1)
    plan.data_writes.append((fresh * size, data.ljust(size, b"\0")))
    for piece in extents.remove(plan, record, tail.logical, tail.logical + 1):
        plan.free(piece.physical, piece.length)
    extents.insert(plan, record, Mapping(tail.logical, fresh, 1, False))


def trim(plan: Plan, volume: Volume, ino: int, generation: int | None = None) -> bool:
    """Free the speculative blocks past EOF, after the last close. True when done. ESTALE when the inode number has been
    reused, i.e. its generation is not `generation`.
    """
    if generation is not None and inode_of(plan, ino).generation != generation:
        raise FsError(errno.ESTALE)
    record = _file_of(plan, ino)
    past_eof = record.flags & (FLAG_PREALLOCATED | FLAG_TRUNCATING)
    if past_eof and not trim_record(plan, plan.store.inodes.modify(plan, ino)):
        return False

    plan.on_apply.append(lambda: volume.note_trimmed(ino, record.generation))
    return True
