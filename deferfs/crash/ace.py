"""Bounded exhaustive workloads, in the style of ACE (Mohan et al., "Finding Crash-Consistency Bugs with Bounded
Black-Box Crash Testing", OSDI 2018).

Every sequence of one, two or three operations over a small set of files and directories, with every placement of
fsync, fdatasync, fsync of the directory and sync after them; a renamed file is synced by its new name. As in ACE, the
last operation is always followed by a sync of some kind, and prerequisites of an operation (a directory, a file with
content) are created first. Workloads are numbered: the number in mixed radix is the sequence.
"""

from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from deferfs.crash.model import ROOT
from deferfs.crash.world import World, pattern

FILES: Final = (b"foo", b"A/bar")
DIRECTORIES: Final = (b"A", b"B")
_CONTENT_BYTES: Final = 2600
"""More than fits inline, and no multiple of a block."""

Step = Callable[[World], None]


# --- paths ---
def _find(world: World, path: bytes) -> int | None:
    ino: int | None = ROOT
    for name in path.split(b"/"):
        if ino is None:
            return None
        ino = world.twin.model.nodes[ino].entries.get(name)
    return ino


def _parent(world: World, path: bytes) -> tuple[int, bytes]:
    """(directory, name); the directory is made if it is missing."""
    above, _, name = path.rpartition(b"/")
    return (_directory(world, above) if above else ROOT), name


def _directory(world: World, path: bytes) -> int:
    found = _find(world, path)
    if found is None:
        world.twin.create(ROOT, path, stat.S_IFDIR | 0o755)
        found = _find(world, path)
    assert found is not None
    return found


def _file(world: World, path: bytes) -> int:
    """A file with content at `path`; an inode of another type with that name is used as it is."""
    found = _find(world, path)
    if found is None:
        parent, name = _parent(world, path)
        world.twin.create(parent, name, stat.S_IFREG | 0o644)
        found = _find(world, path)
        assert found is not None
        world.twin.write(found, 0, _bytes(world, _CONTENT_BYTES))
    return found


def _bytes(world: World, length: int) -> bytes:
    return pattern(world.twin.history.last, length)


# --- operations ---
def _creat(world: World, path: bytes) -> None:
    parent, name = _parent(world, path)
    world.twin.create(parent, name, stat.S_IFREG | 0o644)


def _mkdir(world: World, path: bytes) -> None:
    world.twin.create(ROOT, path, stat.S_IFDIR | 0o755)


def _symlink(world: World, path: bytes) -> None:
    parent, name = _parent(world, path)
    world.twin.symlink(parent, name, b"target")


def _append(world: World, path: bytes) -> None:
    ino = _file(world, path)
    world.twin.write(ino, world.twin.model.nodes[ino].size, _bytes(world, 1500))


def _overwrite(world: World, path: bytes) -> None:
    world.twin.write(_file(world, path), 300, _bytes(world, 1200))


def _write_far(world: World, path: bytes) -> None:
    ino = _file(world, path)
    world.twin.write(ino, world.twin.model.nodes[ino].size + 5000, _bytes(world, 700))


def _shorten(world: World, path: bytes) -> None:
    ino = _file(world, path)
    world.twin.truncate(ino, world.twin.model.nodes[ino].size // 2)


def _lengthen(world: World, path: bytes) -> None:
    ino = _file(world, path)
    world.twin.truncate(ino, world.twin.model.nodes[ino].size + 3000)


def _link(world: World, path: bytes) -> None:
    ino = _file(world, path)
    parent, name = _parent(world, _other(path))
    world.twin.link(ino, parent, name)


def _rename(world: World, path: bytes) -> None:
    _file(world, path)
    world.twin.rename(*_parent(world, path), *_parent(world, _other(path)))


def _rename_directory(world: World, path: bytes) -> None:
    _directory(world, path)
    world.twin.rename(ROOT, path, ROOT, _other(path))


def _unlink(world: World, path: bytes) -> None:
    _file(world, path)
    world.twin.unlink(*_parent(world, path))


def _unlink_open(world: World, path: bytes) -> None:
    """Unlink an open file, which stays usable until the end of the run."""
    world.twin.open(_file(world, path))
    world.twin.unlink(*_parent(world, path))


def _remove_and_forget(world: World, path: bytes) -> None:
    """Unlink and FORGET: the inactivation runs, or is queued."""
    ino = _file(world, path)
    world.twin.unlink(*_parent(world, path))
    if ino in world.twin.lookups:
        world.twin.forget(ino)


def _rmdir(world: World, path: bytes) -> None:
    _directory(world, path)
    world.twin.rmdir(ROOT, path)


def _setxattr(world: World, path: bytes) -> None:
    world.twin.setxattr(_file(world, path), b"user.a", _bytes(world, 20))


def _setxattr_large(world: World, path: bytes) -> None:
    world.twin.setxattr(_file(world, path), b"user.b", _bytes(world, 1500))


def _removexattr(world: World, path: bytes) -> None:
    world.twin.removexattr(_file(world, path), b"user.a")


def _other(path: bytes) -> bytes:
    among = FILES if path in FILES else DIRECTORIES
    return among[1 - among.index(path)]


_ON_FILES: Final = (
    _creat, _symlink, _append, _overwrite, _write_far, _shorten, _lengthen, _link, _rename, _unlink, _unlink_open,
    _remove_and_forget, _setxattr, _setxattr_large, _removexattr,
)  # fmt: skip
_ON_DIRECTORIES: Final = (_mkdir, _rmdir, _rename_directory)
OPERATIONS: Final[tuple[tuple[Callable[[World, bytes], None], bytes], ...]] = (
    *((operation, path) for operation in _ON_FILES for path in FILES),
    *((operation, path) for operation in _ON_DIRECTORIES for path in DIRECTORIES),
)
"""(operation, path): the possible steps of a sequence."""


# --- syncs after an operation ---
def _nothing(world: World, path: bytes) -> None:
    pass


def _fsync(world: World, path: bytes) -> None:
    ino = _find(world, path)
    if ino is not None:
        world.twin.fsync(ino)


def _fdatasync(world: World, path: bytes) -> None:
    ino = _find(world, path)
    if ino is not None:
        world.twin.fsync(ino, data_only=True)


def _fsync_directory(world: World, path: bytes) -> None:
    above = path.rpartition(b"/")[0]
    ino = _find(world, above) if above else ROOT
    if ino is not None:
        world.twin.fsync(ino)


def _sync(world: World, path: bytes) -> None:
    world.twin.sync()


_MOVING: Final = (_rename, _rename_directory)
PERSISTENCE: Final = (_nothing, _fsync, _fdatasync, _fsync_directory, _sync)


def perform(world: World, operation: int, persistence: int) -> None:
    """One step: an operation, and the sync after it."""
    act, path = OPERATIONS[operation]
    act(world, path)
    PERSISTENCE[persistence](world, _other(path) if act in _MOVING else path)


@dataclass(frozen=True, slots=True)
class Workload:
    """All sequences of `length` operations."""

    length: int

    @property
    def count(self) -> int:
        """Number of sequences: lower numbers are valid."""
        step = len(OPERATIONS) * len(PERSISTENCE)
        return int(step ** (self.length - 1)) * len(OPERATIONS) * (len(PERSISTENCE) - 1)

    def actions(self, number: int) -> list[tuple[str, tuple[int, int, int, int]]]:
        """The sequence as actions, followed by inodegc."""
        steps: list[tuple[str, tuple[int, int, int, int]]] = []
        number %= self.count
        number, last = divmod(number, len(PERSISTENCE) - 1)
        persistence = last + 1
        for _ in range(self.length):
            number, operation = divmod(number, len(OPERATIONS))
            steps.insert(0, ("ace", (operation, persistence, 0, 0)))
            number, persistence = divmod(number, len(PERSISTENCE))
        return [*steps, ("forget_all", (0, 0, 0, 0)), ("collect_all", (0, 0, 0, 0)), ("sync", (0, 0, 0, 0))]


WORKLOADS: Final = {f"seq-{length}": Workload(length) for length in (1, 2, 3)}
