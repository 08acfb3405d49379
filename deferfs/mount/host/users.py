"""Processes that keep a mount busy: with an open file, a working directory or a mapping in it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from deferfs.mount.host import syscalls
from deferfs.printable import printable


@dataclass(frozen=True, slots=True)
class User:
    """A process that uses the mount; `what` is one path in it, or the kind of use. Its text is safe for a terminal."""

    pid: int
    name: str
    what: str

    def __str__(self) -> str:
        return printable(f"{self.name} (pid {self.pid}, {self.what})")


def users_of(
    device: str,
    *,
    proc: str = "/proc",
    mount_identity: Callable[[str], syscalls.MountIdentity] = syscalls.mount_identity,
) -> list[User]:
    """The processes that use the filesystem with this "major:minor", by any mount and in any mount namespace, as far as
    this user can see; one entry per process."""
    found = []
    for entry in os.listdir(proc):
        if not entry.isdigit():
            continue
        what = next(_uses(f"{proc}/{entry}", device, mount_identity), None)
        if what is not None:
            found.append(User(int(entry), name_of(f"{proc}/{entry}"), what))
    return sorted(found, key=lambda user: user.pid)


def _uses(process: str, device: str, mount_identity: Callable[[str], syscalls.MountIdentity]) -> Iterator[str]:
    """`mount_identity` accesses no filesystem, so one whose daemon is stuck cannot block it."""

    def is_used(link: str) -> bool:
        try:
            return mount_identity(link).device == device
        except OSError:
            return False

    for link, text in (
        ("cwd", "working directory"),
        ("root", "root directory"),
        ("exe", "program"),
    ):
        if is_used(f"{process}/{link}"):
            yield text
    try:
        descriptors = os.listdir(f"{process}/fd")
    except OSError:
        descriptors = []
    for descriptor in descriptors:
        if is_used(f"{process}/fd/{descriptor}"):
            yield _readlink(f"{process}/fd/{descriptor}")
    yield from _mappings(process, device)


def _mappings(process: str, device: str) -> Iterator[str]:
    try:
        with open(f"{process}/maps", encoding="utf-8", errors="surrogateescape", newline="\n") as file:
            for line in file:
                fields = line.rstrip("\n").split(maxsplit=5)
                if len(fields) == 6 and _decimal(fields[3]) == device:
                    yield f"mapping of {fields[5]}"
    except OSError:
        return


def _decimal(device: str) -> str:
    """Convert a "major:minor" of /proc/PID/maps, which is hexadecimal."""
    major, _, minor = device.partition(":")
    return f"{int(major, 16)}:{int(minor, 16)}"


def _readlink(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def name_of(process: str) -> str:
    """The name of the process with this directory in /proc, unescaped; `?` when it has ended."""
    try:
        with open(f"{process}/comm", "rb") as file:
            return os.fsdecode(file.read().removesuffix(b"\n"))
    except OSError:
        return "?"
