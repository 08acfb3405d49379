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
    who mounted it, as far as the filesystem says so."""

    device: str
    mountpoint: str
    fstype: str
    source: str
    read_only: bool
    uid: int = 0

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
        if len(head) < 6 or len(tail) < 2:
            continue
        read_only = "ro" in head[5].split(",")
        place, source, uid = _unescape(head[4]), _unescape(tail[1]), _uid(tail[2:])
        mounts.append(Mount(head[2], place, tail[0], source, read_only, uid))
    return mounts


def read() -> list[Mount]:
    """The mounts of this process's namespace now."""
    # the kernel escapes line feeds in paths, and no other ends of lines
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        return parse(file)


def at(path: str, mounts: Iterable[Mount]) -> Mount | None:
    """The topmost mount whose mountpoint is exactly `path` (absolute)."""
    found = None
    for mount in mounts:
        if mount.mountpoint == path:
            found = mount
    return found


def containing(path: str, mounts: Iterable[Mount]) -> Mount | None:
    """The mount that the absolute `path` is in: the topmost with the longest mountpoint above it."""
    found = None
    for mount in mounts:
        prefix = mount.mountpoint.rstrip("/") + "/"
        inside = path == mount.mountpoint or path.startswith(prefix)
        if inside and (found is None or len(mount.mountpoint) >= len(found.mountpoint)):
            found = mount
    return found


def find_deferfs(path: str) -> Mount | None:
    """The deferfs mount that `path` (relative paths and links allowed) is in or is the image of; else None."""
    mounts = read()
    plain = os.path.abspath(path)
    found = containing(plain, mounts)
    if found is not None and found.is_deferfs:
        return found
    resolved = os.path.realpath(path)
    found = containing(resolved, mounts)
    if found is not None and found.is_deferfs:
        return found
    return mount_of_image(resolved, mounts)


def mount_of_image(image: str, mounts: Iterable[Mount]) -> Mount | None:
    """Where the image at the absolute path `image` is mounted, or None."""
    for mount in mounts:
        if mount.is_deferfs and mount.source == image:
            return mount
    return None
