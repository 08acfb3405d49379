"""Operations of a twin that are stopped at their waits while others run: commits, freezes, inodegc.

All of these can happen while a request of a mount waits for the log, memory, space or inodegc. Each promise is checked
against the state when the request began: an fsync covers what was written before it, not later writes.
"""

from __future__ import annotations

import stat
from collections.abc import Callable
from typing import Any, TypeVar

from deferfs.crash.content import CHUNK_BYTES
from deferfs.crash.history import first_foreign_byte
from deferfs.crash.model import Node, Nodes
from deferfs.crash.twin import Changed, InModel, Twin
from deferfs.crash.twin_error import TwinError
from deferfs.errors import FsError
from deferfs.ondisk.inode import Inode
from deferfs.store.plan import Plan
from deferfs.volume import attributes, files, namespace, reading, writing, xattrs
from deferfs.volume.new_inode import NewInode
from deferfs.volume.waits import Task

T = TypeVar("T")


def _stand(
    twin: Twin,
    name: str,
    ino: int,
    task: Task[T],
    then: Callable[[T], None],
    refused: Callable[[FsError], None],
    *,
    cold: bool = False,
) -> None:
    """Begin a task on an inode; a `cold` one finds nothing in the page cache."""
    reference = twin.hold(ino)
    if cold:
        twin.evict()

    def done(result: T) -> None:
        twin.let_go(reference)
        then(result)

    def failed(error: FsError) -> None:
        twin.let_go(reference)
        refused(error)

    twin.driver.begin(name, task, done, failed, cold=cold)


def _nothing(result: object) -> None:
    """The model was changed already, when the operation was applied."""


def _operation(
    twin: Twin,
    ino: int,
    in_model: InModel[T],
    op: Callable[..., T],
    *args: Any,
    removes: bool = False,
    cold: bool = False,
    **kwargs: Any,
) -> None:
    """Begin one operation; one that `removes` a name is throttled before it, as in a mount."""
    engine = twin.driver.engine
    both, what = twin.in_both(in_model, op), f"{op.__name__}{args}"

    def task() -> Task[T]:
        if removes:
            yield from engine.throttle.admit()
        return (yield from engine.operation(lambda plan: both(plan, twin.volume, *args, **kwargs)))

    def refused(error: FsError) -> None:
        twin.refused(lambda: in_model(None, {}), error, what)

    _stand(twin, what, ino, task(), _nothing, refused, cold=cold)


def create(twin: Twin, parent: int, name: bytes) -> None:
    """Create a file, whose lookup is counted when it is applied."""
    mode = stat.S_IFREG | 0o644

    def in_model(record: Inode | None, _: Changed) -> None:
        twin.model.create(parent, name, Node(mode), record.ino if record is not None else 0)
        if record is not None:
            twin.looked_up(record)

    _operation(twin, parent, in_model, namespace.create, parent, name, NewInode(mode))


def unlink(twin: Twin, parent: int, name: bytes) -> None:
    """Remove a name."""
    _operation(twin, parent, lambda *_: twin.model.unlink(parent, name), namespace.unlink, parent, name, removes=True)


def setattr(twin: Twin, ino: int, mode: int, *, cold: bool = False) -> None:
    """A small change."""

    def in_model(*_: object) -> None:
        twin.model.setattr(ino, mode=mode)

    _operation(twin, ino, in_model, attributes.setattr, ino, mode=mode, cold=cold)


def setxattr(twin: Twin, ino: int, name: bytes, value: bytes) -> None:
    """An extended attribute; a long one takes blocks."""

    def in_model(*_: object) -> None:
        twin.model.setxattr(ino, name, value, 0)

    _operation(twin, ino, in_model, xattrs.setxattr, ino, name, value, 0)


def truncate(twin: Twin, ino: int, size: int) -> None:
    """Truncate, in as many operations as it takes."""

    def in_model(done: bool | None, changed: Changed) -> None:
        if done is not False or changed[ino].size == size:
            twin.model.truncate(ino, size)

    part, volume = twin.in_both(in_model, files.truncate), twin.volume
    task = writing.until_done(twin.driver.engine, lambda plan: part(plan, volume, ino, size))
    _stand(
        twin,
        "truncate",
        ino,
        task,
        _nothing,
        lambda error: twin.refused(lambda: twin.model.truncate(ino, size), error, "truncate"),
    )


def write(twin: Twin, ino: int, offset: int, data: bytes) -> None:
    """Write, in as many operations as the volume needs."""

    def then(done: int) -> None:
        if done < len(data):
            twin.take_failed_write(ino)

    def refused(error: FsError) -> None:
        twin.refused(lambda: twin.model.write(ino, offset, data), error, "write")
        twin.take_failed_write(ino)

    _stand(twin, "write", ino, twin.writing(ino, offset, data), then, refused)


def read(twin: Twin, ino: int, first: int, count: int) -> None:
    """So many chunks of a file: each byte has been of this file, or was to be."""
    volume, history = twin.volume, twin.history
    began = history.last
    while began and ino in history.states[began - 1]:
        began -= 1

    def check(result: tuple[files.ReadPlan, bytes]) -> None:
        data = result[1]
        for at in range(0, len(data), CHUNK_BYTES):
            number = first + at // CHUNK_BYTES
            pieces = history.pieces(ino, number, began, twin.position)
            if first_foreign_byte(data[at : at + CHUNK_BYTES], pieces) >= 0:
                raise TwinError(f"inode {ino}: a read of chunk {number} tells bytes of another file")

    def find(plan: Plan) -> files.ReadPlan:
        return files.read(plan, volume, ino, first * CHUNK_BYTES, count * CHUNK_BYTES)

    _stand(twin, "read", ino, reading.content(twin.driver.engine, find), check, twin.require_broken)


def fsync(twin: Twin, ino: int, *, data_only: bool) -> None:
    """fsync: the current content of the file must be durable when it ends."""
    began, then = twin.history.last, twin.model.node(ino)

    def check(_: None) -> None:
        floor = twin.history.floors[-1][1]
        if floor < began:
            _require_as_at(twin.history.states[floor], ino, then, data_only=data_only)

    _stand(
        twin, "fsync", ino, twin.driver.engine.durability.fsync(ino, data_only=data_only), check, twin.require_broken
    )


def sync(twin: Twin) -> None:
    """sync: everything current must be durable when it ends."""
    began = twin.history.last

    def check(_: None) -> None:
        if twin.history.floors[-1][1] < began:
            raise TwinError(f"state {began} is not durable after the sync that began with it")

    twin.driver.begin("sync", twin.driver.engine.durability.sync(), check, twin.require_broken)


def forget(twin: Twin, ino: int) -> None:
    """FORGET: under `inline`, its handler waits for the cleanup."""
    forget_all(twin, [ino])


def forget_all(twin: Twin, inos: list[int]) -> None:
    """One FORGET message of many inodes."""
    task = twin.driver.engine.forgetting.forget([(ino, twin.lookups.pop(ino)) for ino in inos])
    if task is not None:
        twin.driver.begin("forget", task)


def release(twin: Twin, number: int) -> None:
    """RELEASE; trims left to the background happen with the next one."""
    task = twin.driver.engine.eviction.release(twin.handles.pop(number))
    if task is not None:
        twin.driver.begin("release", task)


def freeze(twin: Twin) -> None:
    """Begin to freeze the volume."""
    twin.driver.begin_freeze(twin.require_broken)


def thaw(twin: Twin) -> None:
    """Begin to thaw it."""
    twin.driver.begin_thaw(twin.require_broken)


def _require_as_at(state: Nodes, ino: int, then: Node, *, data_only: bool) -> None:
    found = state.get(ino)
    if found is None or found.size != then.size or found.content is not then.content:
        raise TwinError(f"inode {ino}: what it held when the fsync began is not durable at its end")
    if not data_only and found != then:
        raise TwinError(f"inode {ino}: not durable as it was when the fsync began")
