"""A volume and its model, driven together: both must give the same results.

The twin acts as the kernel: it counts lookups and keeps handles. Every operation adds a state to the history when the
volume applies it, so that a crash image can be compared with it.
"""

from __future__ import annotations

import errno
import random
import stat
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from deferfs.crash import comparing
from deferfs.crash.access_times import AccessTimes, changed_records
from deferfs.crash.content import CHUNK_BYTES
from deferfs.crash.frozen import FrozenImage
from deferfs.crash.history import History, first_foreign_byte
from deferfs.crash.model import ROOT, Model, ModelError, Node, differences, names_of
from deferfs.crash.noting import NotingDevice
from deferfs.crash.oracle import Oracle
from deferfs.crash.states import CrashStates
from deferfs.crash.stepping import SteppingDriver
from deferfs.crash.tree import read_content, read_tree, times_of
from deferfs.crash.twin_error import TwinError
from deferfs.device import Buffer, FailingDevice, MemoryDevice
from deferfs.errors import FsError
from deferfs.ondisk.inode import Inode
from deferfs.reclaim.inode import ActiveReference, InCoreInode
from deferfs.store.plan import Plan
from deferfs.volume import attributes, files, namespace, writing, xattrs
from deferfs.volume.new_inode import Credentials, NewInode
from deferfs.volume.volume import Volume
from deferfs.volume.waits import Task

T = TypeVar("T")
Changed = dict[int, Inode]
InModel = Callable[[T | None, Changed], None]
"""The effect of an operation on the model, given its result (None when the volume has refused it) and the records it
changed."""


class Twin:
    """A volume opened from `image`, its model, and their history.

    `clock` and `entropy` must never repeat a value: states are distinguished by times, and inodes with the same number
    by generations. `dice` is for the oracle.
    """

    def __init__(
        self,
        image: bytes,
        *,
        clock: Callable[[], int],
        entropy: Callable[[], int],
        dice: random.Random,
        evict: str = "deferred",
        memory_bytes: int = 64 << 20,
        discard: bool = False,
        atime: str = "relative",
    ) -> None:
        self.below = FailingDevice(MemoryDevice.from_bytes(image), like_file=True)
        """Injects faults. Only requests that succeed are recorded above it."""
        self.start = image
        self.device = NotingDevice(self.below)
        self._clock = clock
        self._now = 0
        """The last time returned by the clock."""
        self.driver = SteppingDriver.open(
            self.device, clock=self._tell_time, entropy=entropy, evict=evict, memory_bytes=memory_bytes
        )
        self.driver.engine.write_back.discard = discard
        self.driver.volume.atime = atime
        self.device.phase = self.driver.phase
        self.model = Model(self._read_everything())
        self.access_times = AccessTimes()
        self.history = History(self.model.nodes)
        self.oracle = Oracle(CrashStates(image, self.device.records), self.history, dice=dice)
        self.lookups: dict[int, int] = {}
        """Lookups of each inode that the kernel has not forgotten."""
        self.handles: list[ActiveReference] = []
        self.held: list[ActiveReference] = []
        """References held by waiting operations, as by handlers in a mount."""
        self.driver.on_freeze = lambda: self.history.last
        self.driver.on_durable = lambda state: self.history.durable(self.position, state)
        self._modelled = False
        """Whether the operation being applied has been applied to the model, too."""
        frozen = FrozenImage(self.driver, self.device, self.history)
        self.driver.on_frozen, self.driver.on_thaw = frozen.begins, frozen.ends
        self.driver.engine.after = self._applied
        self.driver.engine.cleanup.on_applied = self._inactivated

    @property
    def volume(self) -> Volume:
        return self.driver.volume

    @property
    def position(self) -> int:
        """Records in the log of the disk."""
        return len(self.device.records)

    def _tell_time(self) -> int:
        self._now = self._clock()
        return self._now

    def _read_everything(self) -> dict[int, Node]:
        nodes = read_tree(self.driver)
        for ino, node in nodes.items():
            if node.is_file and node.nlink:
                nodes[ino] = replace(node, content=read_content(self.driver, ino, node.size))
        return nodes

    # --- one operation on both ---
    def _both(self, in_model: InModel[T], op: Callable[..., T], *args: Any, **kwargs: Any) -> T | None:
        """The result of the operation; None when both refuse it with the same errno, when space ran out, or when the
        device failed.
        """
        both, what = self.in_both(in_model, op), f"{op.__name__}{args}"
        try:
            return self.driver.run(both, self.volume, *args, **kwargs)
        except FsError as error:
            self.refused(lambda: in_model(None, {}), error, what)
            return None

    def in_both(self, in_model: InModel[T], op: Callable[..., T]) -> Callable[..., T]:
        """An operation that is applied to the model when the volume applies it."""

        def both(plan: Plan, *args: Any, **kwargs: Any) -> T:
            result = op(plan, *args, **kwargs)
            plan.on_apply.append(lambda: self._do(in_model, result, plan.inodes, f"{op.__name__}{args[1:]}"))
            return result

        return both

    def _do(self, in_model: InModel[T], result: T, changed: Changed, what: str) -> None:
        try:
            in_model(result, changed)
        except ModelError as error:
            raise TwinError(f"{what}: done, but the model says {errno.errorcode[error.errno]}") from error
        self._modelled = True

    def _applied(self, plan: Plan) -> None:
        """An operation of any kind was applied: its changes make a new state."""
        modelled, self._modelled = self._modelled, False
        if plan.tid:
            self._record(changed_records(plan))
        elif modelled:
            if self.model.nodes != self.history.states[-1]:
                raise TwinError("an operation of the model has changed something, and nothing on the volume")
            self.history.states[-1] = self.model.nodes
        self.driver.engine.write_back.applied(plan)

    def refused(self, in_model: Callable[[], None], error: FsError, what: str) -> None:
        """The volume refuses an operation. The model must refuse it, too, unless space ran out or the device failed."""
        if error.errno != errno.ENOSPC and not self.is_broken(error):
            self._model_refuses(in_model, error, what)

    def _record(self, changed: Changed) -> None:
        before = self.history.states[-1]
        for ino, record in changed.items():
            if ino in self.model.nodes:
                problem = self.access_times.recorded(ino, before.get(ino), record)
                if problem:
                    raise TwinError(problem)
                self.model.observe(ino, times_of(record), record.generation)
        self.history.applied(self.position, self.model.nodes)

    def is_broken(self, error: FsError) -> bool:
        """Whether the error is explained by a failing device."""
        return bool(self.below.failures) and error.errno in (errno.EIO, errno.EROFS)

    def require_broken(self, error: FsError) -> None:
        """Raise unless a failing device explains the error."""
        if not self.is_broken(error):
            raise error

    def _model_refuses(self, in_model: Callable[[], None], error: FsError, what: str) -> None:
        before = self.model.nodes
        try:
            in_model()
        except ModelError as refused:
            if refused.errno != error.errno:
                raise TwinError(f"{what}: {error}, but the model says {errno.errorcode[refused.errno]}") from error
        else:
            raise TwinError(f"{what}: {error}, but the model does it") from error
        finally:
            self.model.nodes = before

    def _inactivated(self, inode: InCoreInode, plan: Plan, done: bool) -> None:
        if done and plan.tid and not self.model.node(inode.ino).nlink:
            self.model.drop(inode.ino)
            self.access_times.drop(inode.ino)

    # --- names ---
    def create(self, parent: int, name: bytes, mode: int, uid: int = 0, gid: int = 0, rdev: int = 0) -> int | None:
        """Create an inode; its number."""
        node = Node(mode, uid, gid, rdev=rdev)
        return self._new(
            lambda ino: self.model.create(parent, name, node, ino),
            namespace.create,
            parent,
            name,
            NewInode(mode, Credentials(uid, gid), rdev),
        )

    def symlink(self, parent: int, name: bytes, target: bytes) -> int | None:
        """Create a symbolic link; its number."""
        node = Node(stat.S_IFLNK | 0o777, size=len(target), target=target)
        return self._new(
            lambda ino: self.model.create(parent, name, node, ino), namespace.symlink, parent, name, target
        )

    def _new(self, create: Callable[[int], None], op: Callable[..., Inode], *args: Any) -> int | None:
        def in_model(record: Inode | None, _: Changed) -> None:
            create(record.ino if record is not None else 0)
            if record is not None:
                self.looked_up(record)

        record = self._both(in_model, op, *args)
        return None if record is None else record.ino

    def link(self, ino: int, parent: int, name: bytes) -> None:
        self._both(lambda *_: self.model.link(ino, parent, name), namespace.link, ino, parent, name)

    def unlink(self, parent: int, name: bytes) -> None:
        self._both(lambda *_: self.model.unlink(parent, name), namespace.unlink, parent, name)

    def rmdir(self, parent: int, name: bytes) -> None:
        self._both(lambda *_: self.model.rmdir(parent, name), namespace.rmdir, parent, name)

    def rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int = 0) -> None:
        arguments = (parent, name, new_parent, new_name, flags)
        self._both(lambda *_: self.model.rename(*arguments), namespace.rename, *arguments)

    # --- attributes ---
    def setattr(self, ino: int, **changes: int) -> None:
        self._both(lambda *_: self.model.setattr(ino, **changes), attributes.setattr, ino, **changes)

    def set_times(self, ino: int, atime_ns: int, mtime_ns: int) -> None:
        def in_model(_: Inode | None, changed: Changed) -> None:
            if changed:
                self.access_times.set(ino, atime_ns)

        self._both(in_model, attributes.setattr, ino, atime_ns=atime_ns, mtime_ns=mtime_ns)

    def setxattr(self, ino: int, name: bytes, value: bytes, flags: int = 0) -> None:
        arguments = (ino, name, value, flags)
        self._both(lambda *_: self.model.setxattr(*arguments), xattrs.setxattr, *arguments)

    def removexattr(self, ino: int, name: bytes) -> None:
        self._both(lambda *_: self.model.removexattr(ino, name), xattrs.removexattr, ino, name)

    # --- data ---
    def write(self, ino: int, offset: int, data: bytes) -> None:
        """Write everything, in as many operations as the volume needs."""
        try:
            done = self.driver.drive(self.writing(ino, offset, data))
        except FsError as error:
            self.refused(lambda: self.model.write(ino, offset, data), error, f"write{ino, offset}")
            done = 0
        if done < len(data):
            self.take_failed_write(ino)

    def writing(self, ino: int, offset: int, data: bytes) -> Task[int]:
        """The task that writes to both; returns the number of bytes reported to the caller."""
        write = writing.part_of(self.driver.engine, ino)
        written = 0

        def part(plan: Plan, at: int, rest: Buffer, fresh_max: int) -> int:
            count = write(plan, at, rest, fresh_max)
            content = bytes(rest)
            if plan.data_writes:
                self.history.attempt(self.position, ino, at, content)

            def in_model(*_: object) -> None:
                nonlocal written
                self.model.write(ino, at, content[:count])
                written += count

            plan.on_apply.append(lambda: self._do(in_model, count, plan.inodes, "write"))
            return count

        told = yield from writing.write_all(self.driver.engine, part, offset, data)
        if told != written:
            raise TwinError(f"write{ino, offset}: {told} bytes are told, {written} were written")
        return told

    def take_failed_write(self, ino: int) -> None:
        """A refused write may have reached the file in place: each byte is the old or the new one."""
        node = self.model.nodes.get(ino)
        if node is None or not node.is_file:
            return
        found = read_content(self.driver, ino, node.size)
        changed = [n for n in found.numbers() | node.content.numbers() if found.chunk(n) != node.content.chunk(n)]
        for number in changed:
            pieces = self.history.pieces(ino, number, self.history.last, self.position)
            at = first_foreign_byte(found.chunk(number)[: node.size - number * CHUNK_BYTES], pieces)
            if at >= 0:
                raise TwinError(f"inode {ino}: byte {number * CHUNK_BYTES + at} is foreign after a failed write")
        if changed:
            self.model.nodes = {**self.model.nodes, ino: replace(node, content=found)}
            self.history.applied(self.position, self.model.nodes)

    def truncate(self, ino: int, size: int) -> None:
        """Set the size, in as many operations as it takes."""

        def in_model(done: bool | None, changed: Changed) -> None:
            if done is not False or changed[ino].size == size:
                self.model.truncate(ino, size)

        part, volume = self.in_both(in_model, files.truncate), self.volume
        try:
            self.driver.drive(writing.until_done(self.driver.engine, lambda plan: part(plan, volume, ino, size)))
        except FsError as error:
            self.refused(lambda: self.model.truncate(ino, size), error, f"truncate{ino, size}")

    def read(self, ino: int) -> None:
        """Read the whole file, as read(2) does; the access time changes in memory."""
        record = self.access(ino)
        node = self.model.node(ino)
        found = read_content(self.driver, ino, record.size)
        for number in found.numbers() | node.content.numbers():
            if found.chunk(number) != node.content.chunk(number):
                raise TwinError(f"inode {ino}: read gives other bytes than were written, chunk {number}")

    def access(self, ino: int) -> Inode:
        """Change the access time in memory, as readdir(2) and readlink(2) do. Returns the record."""
        record = self.driver.run(attributes.getattr, self.volume, ino)
        if attributes.accessed(self.volume, record):
            self.access_times.accessed(ino, record.atime, self._now)
        return record

    # --- references ---
    def look_up(self, ino: int) -> None:
        """The kernel looks the inode up. A deleted one of which nothing is in core has forgotten what it owed."""
        if ino not in self.volume.inodes.table and not self.model.node(ino).nlink:
            self.access_times.drop(ino)
        self.looked_up(self.driver.run(attributes.getattr, self.volume, ino))

    def looked_up(self, record: Inode) -> None:
        """Count a lookup returned to the kernel."""
        self.volume.lookup_count(record)
        self.lookups[record.ino] = self.lookups.get(record.ino, 0) + 1

    def forget(self, ino: int) -> None:
        """FORGET all lookups."""
        self.driver.forget(ino, self.lookups.pop(ino))

    def open(self, ino: int) -> None:
        """Open a handle."""
        record = self.driver.run(attributes.getattr, self.volume, ino)
        self.handles.append(self.volume.hold(record))

    def release(self, number: int) -> None:
        """Close a handle; after the last one the inode is placed by the policy or trimmed."""
        self.driver.release(self.handles.pop(number))

    def hold(self, ino: int) -> ActiveReference:
        """Take a reference for an operation that may wait."""
        reference = self.volume.hold(self.driver.run(attributes.getattr, self.volume, ino))
        self.held.append(reference)
        return reference

    def let_go(self, reference: ActiveReference) -> None:
        """Drop the reference of an operation."""
        self.held.remove(reference)
        self.driver.release(reference)

    # --- durability ---
    def fsync(self, ino: int, *, data_only: bool = False) -> None:
        """fsync: the file as it is now, and its names, must be durable. With `data_only`, except for its times."""
        self.driver.fsync(ino, data_only=data_only)
        now = self.model.node(ino)
        floor = self.history.floors[-1][1]
        state = self.history.states[floor]
        then = state.get(ino)
        if then is None or then.size != now.size or then.content is not now.content:
            raise TwinError(f"inode {ino}: its data is not durable after fsync (state {floor})")
        if data_only:
            then = replace(then, times=now.times)
        if then != now:
            raise TwinError(f"inode {ino}: not durable after fsync: {differences({ino: then}, {ino: now})}")
        if names_of(state, ino) != names_of(self.model.nodes, ino):
            raise TwinError(f"inode {ino}: its names are not durable after fsync (state {floor})")

    def sync(self) -> None:
        """sync: everything must be durable."""
        last = self.history.last
        self.driver.sync()
        if self.history.floors[-1][1] < last:
            raise TwinError(f"state {last} is not durable after sync")

    # --- memory ---
    def under_pressure(self, bytes_over: int) -> None:
        """Direct reclaim of `bytes_over` bytes by a read-only operation, inodes first."""
        memory = self.volume.store.memory
        limit = memory.limit_bytes
        memory.set_limit(max(1, (memory.used - bytes_over) * 16 // 15))
        try:
            self.driver.run(attributes.getattr, self.volume, ROOT)
        finally:
            memory.set_limit(limit)

    def evict(self) -> None:
        """Evict all clean blocks. Each must be on the disk as in the cache."""
        cache, fmt = self.volume.store.cache, self.volume.store.fmt
        for address, entry in cache.entries.items():
            if not entry.holds:
                found = self.device.read(address * fmt.block_size, fmt.block_size)
                if found != entry.obj.encode(fmt, address):
                    raise TwinError(f"block {address} is clean, and the disk has something else than the cache")
        cache.shrink(1 << 62)

    def unmount(self) -> None:
        """Unmount: everything owed must be written."""
        self.driver.close()
        if self.access_times.owed:
            raise TwinError(f"unmounted, with access times that were never written: {self.access_times.owed}")

    # --- comparison ---
    def check_access_times(self) -> None:
        """As `comparing.check_access_times`."""
        comparing.check_access_times(self)

    def verify(self) -> None:
        """Once all waiting tasks have ended, the volume must equal the model."""
        self.driver.finish_standing()
        comparing.verify(self)
