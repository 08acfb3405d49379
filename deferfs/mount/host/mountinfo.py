"""The mount table: /proc/self/mountinfo. No filesystem is accessed, so a dead mount cannot block it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

FSTYPE: Final = "fuse.deferfs"
_ESCAPE: Final = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line. `device`: the kernel's "major:minor" of the filesystem; `source`: the image; `uid`: the user who
    mounted it, if the filesystem reports that; `id`: the number of the mount in the table, `parent`: that of the mount
    on which it is mounted."""

    device: str
    mountpoint: str
    fstype: str
    source: str
    read_only: bool
    uid: int = 0
    id: int = 0
    parent: int = 0

    @property
    def is_deferfs(self) -> bool:
        """Whether a deferfs daemon serves it."""
        return self.fstype == FSTYPE


def _unescape(text: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)


def _uid(options: list[str]) -> int:
    for word in ",".join(options).split(","):
        if word.startswith("user_id=") and word[8:].isdigit():
            return int(word[8:])
    return 0


def parse(lines: Iterable[str]) -> list[Mount]:
    """Parse the text of a mountinfo file; mounts in order, oldest first."""
    mounts = []
    for line in lines:
        fields, _, rest = line.partition(" - ")
        head, tail = fields.split(" "), rest.rstrip("\n").split(" ")  # a path may contain other white space
        if len(head) < 6 or len(tail) < 2 or not (head[0].isdigit() and head[1].isdigit()):
            continue
        read_only = "ro" in head[5].split(",")
        place, source, uid = _unescape(head[4]), _unescape(tail[1]), _uid(tail[2:])
        mounts.append(Mount(head[2], place, tail[0], source, read_only, uid, int(head[0]), int(head[1])))
    return mounts


def read(process: str = "/proc/self") -> list[Mount]:
    """The mounts visible to a process now: this one by default, else that of the directory `process` in /proc."""
    # the kernel escapes line feeds in paths, but no other line separators
    with open(f"{process}/mountinfo", encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        return parse(file)


def device_of(mount_id: int, process: str = "/proc/self") -> str | None:
    """The "major:minor" of the mount with this number; None when the process does not see it, or the table cannot be
    read."""
    try:
        return next((mount.device for mount in read(process) if mount.id == mount_id), None)
    except OSError:
        return None


def at(path: str, mounts: Iterable[Mount]) -> Mount | None:
    """The topmost mount at `path` (absolute), if that is a mountpoint."""
    found = containing(path, mounts)
    return found if found is not None and found.mountpoint == path else None


def containing(path: str, mounts: Iterable[Mount]) -> Mount | None:
    """The mount that contains the absolute `path`: where the kernel's path walk ends, whatever mounts are stacked, and
    in whatever order they were mounted or moved."""
    table = list(mounts)
    numbers = {mount.id for mount in table}
    found = None
    # The parent of the first may be a mount that a process with another root directory does not see.
    candidates = [mount for mount in table if mount.parent not in numbers or mount.parent == mount.id]
    while met := [mount for mount in candidates if _is_inside(path, mount.mountpoint)]:
        found = min(met, key=lambda mount: len(mount.mountpoint))
        candidates = _mounted_on(found, table)
    return found


def in_the_way(mount: Mount, mounts: Iterable[Mount]) -> Mount | None:
    """A mount over `mount`, over a directory above it, or inside it. None when its mountpoint leads to it, and it can
    be unmounted alone."""
    table = list(mounts)
    seen = containing(mount.mountpoint, table)
    if seen is not None and seen.id != mount.id:
        return seen
    return next(iter(_mounted_on(mount, table)), None)


def _mounted_on(mount: Mount, table: list[Mount]) -> list[Mount]:
    return [other for other in table if other.parent == mount.id and other.id != mount.id]


def _is_inside(path: str, mountpoint: str) -> bool:
    return path == mountpoint or path.startswith(mountpoint.rstrip("/") + "/")


def find_deferfs(path: str) -> Mount | None:
    """The deferfs mount that contains `path` (which may be relative or contain links); else None."""
    mounts = read()
    for full in (os.path.abspath, os.path.realpath):  # realpath accesses the filesystem, whose daemon may be stuck
        found = containing(full(path), mounts)
        if found is not None and found.is_deferfs:
            return found
    return None


def hidden_deferfs(path: str) -> Mount | None:
    """The mount over the deferfs whose mountpoint is `path`; None when there is none."""
    mounts = read()
    names = (os.path.abspath(path), os.path.realpath(path))
    for mount in mounts:
        if mount.is_deferfs and mount.mountpoint in names:
            return in_the_way(mount, mounts)
    return None
