"""The plan of one operation: a private overlay over the caches.

An operation runs against a plan. It reads blocks with `get`, and takes a private copy with `modify` of those it
changes. It raises a `Need` for what it lacks; any exception drops the plan without effect. `apply` publishes all
changes at once and joins the running transaction.

**Invariant:** between `Plan()` and `apply()` or `drop()` no other plan runs (the core is single-threaded and a plan
never waits), so what it read is still true when it is applied. The only shared state it touches before `apply` is the
free-space index, where the blocks it allocates are held; `drop` releases them.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from deferfs.device.base import Buffer
from deferfs.errors import CorruptionError, FsError
from deferfs.ondisk.bitmap import Bitmap
from deferfs.ondisk.format import Block
from deferfs.ondisk.inode import Inode
from deferfs.store.needs import NeedBlocks, NeedData, NeedThaw, NeedWriteBack

if TYPE_CHECKING:
    from deferfs.store.store import Store
    from deferfs.store.transaction import Grant

B = TypeVar("B", bound=Block)


class Plan:
    """One operation's overlay. `reserve` marks operations that free space or memory: they may use the reserves."""

    __slots__ = (
        "data_sync", "data_writes", "freed", "grant", "held", "inodes", "looked_up", "on_apply", "orphans", "raised",
        "reserve", "revoked", "staged", "stamp", "store", "supplied", "throttled", "tid",
    )  # fmt: skip

    def __init__(self, store: Store, *, reserve: bool = False, grant: Grant | None = None) -> None:
        self.store = store
        self.reserve = reserve
        self.grant = grant
        self.staged: dict[int, Block] = {}
        self.inodes: dict[int, Inode] = {}
        """Staged inode records."""
        self.raised: set[int] = set()
        """Inodes changed in nothing but their access times, whose records are sealed in their staged blocks."""
        self.looked_up: dict[int, Inode] = {}
        """Published inode records this plan has read: a small cache, as operations look up the same inodes
        repeatedly."""
        self.data_sync: set[int] = set()
        """Inodes changed in more than their times: fdatasync must commit them."""
        self.held: list[tuple[int, int]] = []
        self.freed: list[tuple[int, int]] = []
        self.revoked: list[int] = []
        self.throttled = reserve or grant is not None
        """Skip the wait for writeback: it was done already, or other operations wait for what this one holds or
        frees."""
        self.data_writes: list[tuple[int, Buffer]] = []
        """(byte offset, bytes) of file data, written by the driver just before `apply`."""
        self.supplied: dict[tuple[int, int], bytes] = {}
        self.on_apply: list[Callable[[], None]] = []
        self.orphans: list[Inode] = []
        """Staged records of orphans: their slots must be kept in step with the blocks they hold."""
        self.stamp = 0
        """The time returned by `now`; 0 before the first call."""
        self.tid = 0
        """Id of the transaction joined; 0 when the plan changed nothing."""

    def now(self) -> int:
        """The time of this operation, in ns since the epoch, for every time stamp that it sets: read once, when first
        needed. A retried operation is a new plan, with a time after its wait: time stamps follow the order in which
        operations are applied."""
        if not self.stamp:
            self.stamp = self.store.stamp()
        return self.stamp

    # --- reads ---
    def get(self, address: int, kind: type[B]) -> B:
        """The block as this plan sees it. NeedBlocks when it is not cached."""
        found = self.staged.get(address)
        if found is None:
            entry = self.store.cache.entries.get(address)
            if entry is None:
                raise NeedBlocks([(address, kind)])
            entry.hot = True
            found = entry.obj
        if type(found) is not kind:
            raise CorruptionError(f"block {address} is used both as {kind.MAGIC!r} and as {found.MAGIC!r}")
        return found

    def has(self, address: int) -> bool:
        """Whether `get` needs no fetch for the block."""
        entry = self.store.cache.entries.get(address)
        if entry is not None:
            entry.hot = True
        return entry is not None or address in self.staged

    def data(self, offset: int, length: int) -> bytes:
        """File data to be copied by the operation. NeedData until the driver has supplied it."""
        found = self.supplied.get((offset, length))
        if found is None:
            raise NeedData(offset, length)
        return found

    # --- changes ---
    def modify(self, address: int, kind: type[B]) -> B:
        """The plan's private copy of the block.

        EROFS when the filesystem is read-only or the journal aborted, NeedThaw while it is frozen: raised here, before
        the driver writes the data of the operation. Operations that only read get neither.
        """
        found = self.staged.get(address)
        if found is not None:
            if type(found) is not kind:
                raise CorruptionError(f"block {address} is used both as {kind.MAGIC!r} and as {found.MAGIC!r}")
            return found
        if self.store.read_only or self.store.journal.aborted is not None:
            raise FsError(errno.EROFS)
        if self.store.frozen:
            raise NeedThaw
        copy = self.get(address, kind).copy()
        self.staged[address] = copy
        return copy

    def create(self, address: int, obj: Block) -> None:
        """Stage the content of a newly allocated block."""
        self.staged[address] = obj

    def allocate(self, goal: int, want: int) -> tuple[int, int]:
        """Allocate up to `want` consecutive blocks near `goal`: (first, length). NeedFreeSpace when no block is
        free."""
        first, length = self.store.space.hold(goal, want, reserve=self.reserve)
        self.held.append((first, length))
        self._mark(first, length, 1)
        return first, length

    def free(self, first: int, length: int) -> None:
        """Free blocks; they can be reused once the transaction has committed."""
        self._mark(first, length, 0)
        self.freed.append((first, length))

    def free_metadata(self, address: int) -> None:
        """Free a metadata block and revoke it: recovery must never replay older images over its next use."""
        self.staged.pop(address, None)
        self.revoked.append(address)
        self.free(address, 1)

    def _mark(self, first: int, length: int, value: int) -> None:
        store = self.store
        if not 0 < first <= first + length <= store.superblock.blocks:
            raise CorruptionError(f"blocks {first}..{first + length} lie outside the filesystem")
        for group, start, part in store.fmt.parts_in_groups(first, length):
            bitmap = self.modify(store.superblock.bitmap_address(group), Bitmap)
            if bitmap.bits.count(1 - value, start, start + part) != part:
                at = group * store.fmt.bits_per_bitmap + start
                raise CorruptionError(f"blocks {at}..{at + part}: free space bitmap disagrees")
            bitmap.bits[start : start + part] = value

    # --- end ---
    def require_write_back(self) -> None:
        """To be called before the data of the operation is written: NeedWriteBack while too much is dirty and the
        operation would add to it. Blocks of the running transaction are dirty already, and not counted."""
        if self.throttled or not self.staged or not self.store.memory.too_dirty:
            return
        running = self.store.journal.running.images
        added = 0
        for address in self.staged:
            if address not in running:
                added += 1
        if added:
            raise NeedWriteBack(added)

    def apply(self) -> None:
        """Publish all changes and join the running transaction. NeedLogSpace (with nothing changed) when the log cannot
        grant the credits, CorruptionError when a count would become negative; otherwise it cannot fail."""
        store = self.store
        for inode in self.inodes.values():
            if inode.blocks < 0 or inode.size < 0 or inode.nlink < 0:
                raise CorruptionError(f"inode {inode.ino}: counts fewer blocks, entries or links than it has")
        if self.staged or self.revoked:
            if self.orphans:
                store.orphans.follow(self, self.orphans)
            self.tid = store.journal.join(self)
            store.space.applied(self.held, self.freed)
        for action in self.on_apply:
            action()
        self._end()

    def drop(self) -> None:
        """Abandon the plan, without effect."""
        for first, length in self.held:
            self.store.space.let_go(first, length)
        self.held.clear()
        self._end()

    def _end(self) -> None:
        """Drop references that may lead back to this plan (as `on_apply` mostly does) and the bytes of the request: a
        plan must never be part of a reference cycle, which only Python's collector frees."""
        self.on_apply.clear()
        self.data_writes.clear()
