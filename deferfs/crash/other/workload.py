"""A workload on a mounted filesystem, by system calls, with notes of what was promised.

The promises of deferfs, as far as every filesystem fit for databases makes them: fsynced data is exact until it is
written again, a name is durable once its directory has been fsynced, and rename is atomic.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from deferfs.crash.other.filesystems import run

_FILES: Final = 6
_LENGTHS: Final = (10, 700, 4096, 9000, 30_000)


@dataclass(slots=True)
class Version:
    """The content of a name from `mark` on: bytes, or None when it was removed. `durable` is the mark of the fsync that
    made it durable. With `grows` it was written gradually, starting from the version before it.
    """

    mark: int
    content: bytes | None
    grows: bool = False
    durable: int | None = None


@dataclass(slots=True)
class Notes:
    """The versions of each name, oldest first."""

    versions: dict[str, list[Version]] = field(default_factory=dict)

    def to_positions(self, places: dict[int, int]) -> None:
        """Replace each mark by the number of records before it."""
        for versions in self.versions.values():
            for version in versions:
                version.mark = places[version.mark]
                version.durable = None if version.durable is None else places[version.durable]

    def all_marks(self) -> list[int]:
        """All marks of the log, in ascending order."""
        found = {mark for versions in self.versions.values() for v in versions for mark in (v.mark, v.durable)}
        return sorted(mark for mark in found if mark is not None)

    def allowed(self, name: str, earliest: int, latest: int) -> list[Version]:
        """The possible contents of the name after crashes at all positions from `earliest` to `latest`: the newest
        version durable by then, and those begun after it. Marks have been replaced by positions.
        """
        begun = [version for version in self.versions[name] if version.mark <= earliest]
        durable = [i for i, v in enumerate(begun) if v.durable is not None and v.durable <= latest]
        return begun[max(durable, default=0) :]


def is_allowed(found: bytes | None, versions: list[Version]) -> bool:
    """Whether the content `found` is allowed. A growing version may be there in part, or as zeros; before the first
    version the name does not exist.
    """
    if not versions:
        return found is None
    old: bytes | None = None
    for version in versions:
        if found == version.content:
            return True
        new = version.content
        if version.grows and found is not None and new is not None and len(old or b"") <= len(found) <= len(new):
            kept = len(old or b"")
            if found[:kept] == new[:kept] and all(a in (b, 0) for a, b in zip(found[kept:], new[kept:], strict=False)):
                return True
        old = new
    return False


class Work:
    """Creates, appends, replaces and deletes in the directory `root`. `mark` returns a position in the log, `sync` is
    the command that makes the whole filesystem durable.
    """

    def __init__(self, root: Path, mark: Callable[[], int], sync: tuple[str, ...], seed: int) -> None:
        self.root = root
        self.sync = sync
        self.mark = mark
        self.dice = random.Random(seed)
        self.notes = Notes()

    def run(self, steps: int) -> Notes:
        """Run `steps` steps, some of them followed by a sync."""
        for number in range(_FILES):
            self._begin(f"f{number}", None).durable = 0
        for _ in range(steps):
            name = f"f{self.dice.randrange(_FILES)}"
            self.dice.choice((self._replace, self._replace, self._write, self._append, self._delete))(name)
            if self.dice.randrange(3) == 0:
                self._sync()
        return self.notes

    def _newest(self, name: str) -> Version:
        return self.notes.versions[name][-1]

    def _begin(self, name: str, content: bytes | None, *, grows: bool = False) -> Version:
        """A change begins: from here on a crash may show it."""
        version = Version(self.mark(), content, grows)
        self.notes.versions.setdefault(name, []).append(version)
        return version

    def _content(self) -> bytes:
        return self.dice.randbytes(self.dice.choice(_LENGTHS))

    def _replace(self, name: str) -> None:
        """Write a new file, fsync it, rename it over the old one, fsync the directory."""
        content = self._content()
        version = self._begin(name, content)
        new = self.root / "new"
        _write(new, content, os.O_CREAT | os.O_TRUNC, 0, sync=True)
        os.rename(new, self.root / name)
        if self.dice.randrange(2):
            _fsync(self.root)
            version.durable = self.mark()

    def _write(self, name: str) -> None:
        """Create a file that did not exist, written once and fsynced with its name."""
        if self._newest(name).content is not None:
            return
        content = self._content()
        empty = self._begin(name, b"")
        version = self._begin(name, content, grows=True)
        _write(self.root / name, content, os.O_CREAT | os.O_EXCL, 0, sync=True)
        _fsync(self.root)
        empty.durable = version.durable = self.mark()

    def _append(self, name: str) -> None:
        """Grow a file, with fdatasync."""
        old = self._newest(name).content
        if old is None:
            return
        more = self._content()
        had_a_durable_name = self._newest(name).durable is not None
        version = self._begin(name, old + more, grows=True)
        _write(self.root / name, more, 0, len(old), sync=True)
        if had_a_durable_name:
            version.durable = self.mark()

    def _delete(self, name: str) -> None:
        if self._newest(name).content is None:
            return
        version = self._begin(name, None)
        os.unlink(self.root / name)
        if self.dice.randrange(2):
            _fsync(self.root)
            version.durable = self.mark()

    def _sync(self) -> None:
        run([*self.sync, str(self.root)])
        mark = self.mark()
        for versions in self.notes.versions.values():
            versions[-1].durable = versions[-1].durable or mark


def _write(path: Path, data: bytes, flags: int, offset: int, *, sync: bool) -> None:
    fd = os.open(path, os.O_WRONLY | flags, 0o600)
    try:
        os.pwrite(fd, data, offset)
        if sync:
            os.fdatasync(fd)
    finally:
        os.close(fd)


def _fsync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
