"""A volume for tests, by paths: its operations are recorded, and then all their crashes are explored."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

from deferfs.crash.explorer import Limits, Tally
from deferfs.crash.model import ROOT
from deferfs.crash.view import Path, RecoveredView
from deferfs.crash.world import Shape, World

Invariant = Callable[[RecoveredView], None]


class VolumeUnderTest:
    """A new, small filesystem in memory. Every operation is applied to the model as well, and compared.

    Promises of a program about its own files are added with `invariant`; those of the filesystem are always checked.
    """

    def __init__(self, shape: Shape | None = None, *, seed: int = 0, limits: Limits | None = None) -> None:
        self.world = World(shape or Shape(), seed)
        self.twin = self.world.twin
        self.limits = limits
        self._invariants: list[tuple[int, Invariant]] = []

    def invariant(self, check: Invariant) -> Invariant:
        """From now on, `check` must hold after every crash: it is called with what is recovered, and raises (e.g.
        AssertionError) when violated. Can be used as a decorator.
        """
        self._invariants.append((self.twin.position, check))
        return check

    def explore(self, *, seed: int = 0) -> Tally:
        """Explore all crashes of the operations so far. Failure when one breaks a promise."""
        explorer = self.world.explorer(seed=seed, limits=self.limits)
        explorer.invariants = tuple(self._invariants)
        return explorer.explore()

    # --- operations, by path ---
    def _ino(self, path: Path) -> int:
        ino = ROOT
        for name in os.fsencode(path).split(b"/"):
            if name:
                found = self.twin.model.nodes[ino].entries.get(name)
                if found is None:
                    raise FileNotFoundError(path)
                ino = found
        return ino

    def _parent(self, path: Path) -> tuple[int, bytes]:
        above, _, name = os.fsencode(path).rstrip(b"/").rpartition(b"/")
        return self._ino(above), name

    def exists(self, path: Path) -> bool:
        """Whether the path exists now."""
        try:
            self._ino(path)
        except FileNotFoundError:
            return False
        return True

    def create(self, path: Path, mode: int = 0o644) -> None:
        """Create an empty file."""
        self.twin.create(*self._parent(path), stat.S_IFREG | mode)

    def mkdir(self, path: Path, mode: int = 0o755) -> None:
        """Create a directory."""
        self.twin.create(*self._parent(path), stat.S_IFDIR | mode)

    def symlink(self, target: Path, path: Path) -> None:
        """A symbolic link at `path`."""
        self.twin.symlink(*self._parent(path), os.fsencode(target))

    def link(self, old: Path, new: Path) -> None:
        """Give a file another name."""
        self.twin.link(self._ino(old), *self._parent(new))

    def unlink(self, path: Path) -> None:
        """Remove a name."""
        self.twin.unlink(*self._parent(path))

    def rmdir(self, path: Path) -> None:
        """Remove an empty directory."""
        self.twin.rmdir(*self._parent(path))

    def rename(self, old: Path, new: Path, flags: int = 0) -> None:
        """rename(2)."""
        self.twin.rename(*self._parent(old), *self._parent(new), flags)

    def write(self, path: Path, data: bytes, offset: int | None = None) -> None:
        """Write at `offset`, by default at the end. The file is created if it is missing."""
        if not self.exists(path):
            self.create(path)
        ino = self._ino(path)
        self.twin.write(ino, self.twin.model.nodes[ino].size if offset is None else offset, data)

    def truncate(self, path: Path, size: int) -> None:
        """Set the size."""
        self.twin.truncate(self._ino(path), size)

    def read(self, path: Path) -> bytes:
        """The whole content of a file."""
        ino = self._ino(path)
        return self.twin.driver.read(ino, 0, self.twin.model.nodes[ino].size)

    def setxattr(self, path: Path, name: bytes, value: bytes) -> None:
        """Set an extended attribute."""
        self.twin.setxattr(self._ino(path), name, value)

    def fsync(self, path: Path) -> None:
        """fsync(2) of a file or directory."""
        self.twin.fsync(self._ino(path))

    def fdatasync(self, path: Path) -> None:
        """fdatasync(2)."""
        self.twin.fsync(self._ino(path), data_only=True)

    def sync(self) -> None:
        """sync(2)."""
        self.twin.sync()

    def forget(self) -> None:
        """Let the kernel forget everything that is not open: deleted files are inactivated, or queued for it."""
        for ino in sorted(self.twin.lookups):
            self.twin.forget(ino)

    def collect(self) -> None:
        """Let inodegc finish what is queued."""
        self.twin.driver.collect()

    def checkpoint(self) -> None:
        """Write home what is committed."""
        self.twin.driver.checkpoint()
