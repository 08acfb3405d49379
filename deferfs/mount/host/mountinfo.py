"""What is mounted where: /proc/self/mountinfo. Never touches a filesystem, so a dead mount cannot hang it."""

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
    """One line. `device` is the kernel's "major:minor" of the mounted filesystem; `source` the image; `uid` the user
    who mounted it, as far as the filesystem says so; `id` the mount's number in the table, `parent` that of the mount
    it is mounted on."""

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
    """The mounts in the text of a mountinfo file, oldest first."""
    mounts = []
    for line in lines:
        fields, _, rest = line.partition(" - ")
        head, tail = fields.split(" "), rest.rstrip("\n").split(" ")  # a path may hold any other white space
        if len(head) < 6 or len(tail) < 2 or not (head[0].isdigit() and head[1].isdigit()):
            continue
        read_only = "ro" in head[5].split(",")
        place, source, uid = _unescape(head[4]), _unescape(tail[1]), _uid(tail[2:])
        mounts.append(Mount(head[2], place, tail[0], source, read_only, uid, int(head[0]), int(head[1])))
    return mounts


def read(process: str = "/proc/self") -> list[Mount]:
    """The mounts that a process sees now: by default this one, else that of the directory `process` in /proc."""
    # the kernel escapes line feeds in paths, and no other ends of lines
    with open(f"{process}/mountinfo", encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        return parse(file)


def device_of(mount_id: int, process: str = "/proc/self") -> str | None:
    """The "major:minor" of the mount with this number; None when the process sees none, or no table can be read."""
    try:
        return next((mount.device for mount in read(process) if mount.id == mount_id), None)
    except OSError:
        return None


def at(path: str, mounts: Iterable[Mount]) -> Mount | None:
    """The mount that is seen at `path` (absolute), if `path` is its mountpoint."""
    found = containing(path, mounts)
    return found if found is not None and found.mountpoint == path else None


def containing(path: str, mounts: Iterable[Mount]) -> Mount | None:
    """The mount that the absolute `path` is in: what the kernel's walk along the path ends in, whatever is mounted over
    what, and in whatever order it was mounted or moved."""
    table = list(mounts)
    numbers = {mount.id for mount in table}
    found = None
    # Above the first there may be one that a process in a changed root directory does not see.
    candidates = [mount for mount in table if mount.parent not in numbers or mount.parent == mount.id]
    while met := [mount for mount in candidates if _is_inside(path, mount.mountpoint)]:
        found = min(met, key=lambda mount: len(mount.mountpoint))
        candidates = _mounted_on(found, table)
    return found


def in_the_way(mount: Mount, mounts: Iterable[Mount]) -> Mount | None:
    """A mount over `mount`, over a directory above of it, or inside of it. None when it can be reached by its
    mountpoint, and taken away alone."""
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
    """The deferfs mount that `path` (relative paths and links allowed) is in; else None."""
    mounts = read()
    for full in (os.path.abspath, os.path.realpath):  # the second asks the filesystem, whose daemon may not answer
        found = containing(full(path), mounts)
        if found is not None and found.is_deferfs:
            return found
    return None


def hidden_deferfs(path: str) -> Mount | None:
    """What is mounted over the deferfs whose mountpoint is `path`; None when there is no such deferfs."""
    mounts = read()
    names = (os.path.abspath(path), os.path.realpath(path))
    for mount in mounts:
        if mount.is_deferfs and mount.mountpoint in names:
            return in_the_way(mount, mounts)
    return None
