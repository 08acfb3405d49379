"""Who keeps a mount busy: processes with an open file, a working directory or a mapping in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from deferfs.printable import printable


@dataclass(frozen=True, slots=True)
class User:
    """A process that uses the mount; `what` is one path of it, or how it is used. Its text is fit for a terminal."""

    pid: int
    name: str
    what: str

    def __str__(self) -> str:
        return printable(f"{self.name} (pid {self.pid}, {self.what})")


def users_of(mountpoint: str, *, proc: str = "/proc") -> list[User]:
    """The processes that use the mount, as far as this user may see; one entry a process."""
    found = []
    for entry in os.listdir(proc):
        if not entry.isdigit():
            continue
        what = next(_uses(f"{proc}/{entry}", mountpoint), None)
        if what is not None:
            found.append(User(int(entry), name_of(f"{proc}/{entry}"), what))
    return sorted(found, key=lambda user: user.pid)


def _uses(process: str, mountpoint: str) -> Iterator[str]:
    """Only reads links, so that a mount that does not answer cannot hang it."""
    for link, text in (
        ("cwd", "working directory"),
        ("root", "root directory"),
        ("exe", "program"),
    ):
        if _is_inside(_readlink(f"{process}/{link}"), mountpoint):
            yield text
    try:
        descriptors = os.listdir(f"{process}/fd")
    except OSError:
        descriptors = []
    for descriptor in descriptors:
        target = _readlink(f"{process}/fd/{descriptor}")
        if _is_inside(target, mountpoint):
            yield target
    yield from _mappings(process, mountpoint)


def _mappings(process: str, mountpoint: str) -> Iterator[str]:
    try:
        with open(f"{process}/maps", encoding="utf-8", errors="surrogateescape", newline="\n") as file:
            for line in file:
                fields = line.rstrip("\n").split(maxsplit=5)
                if len(fields) == 6 and _is_inside(fields[5], mountpoint):
                    yield f"mapping of {fields[5]}"
    except OSError:
        return


def _is_inside(path: str, mountpoint: str) -> bool:
    return path == mountpoint or path.startswith(mountpoint.rstrip("/") + "/")


def _readlink(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def name_of(process: str) -> str:
    """What the process of this directory of /proc calls itself, as it is; `?` when it has gone."""
    try:
        with open(f"{process}/comm", "rb") as file:
            return os.fsdecode(file.read().removesuffix(b"\n"))
    except OSError:
        return "?"
