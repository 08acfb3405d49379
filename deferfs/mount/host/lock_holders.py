"""The processes that hold a lock on a file, from /proc.

The locks of every open file are in /proc/PID/fdinfo/FD, in the format of /proc/locks: including record locks of an open
file description, for which /proc/locks has no process, and for each process that has inherited the descriptor. Only
root can read those of other users' processes; for flock(2) locks of these, /proc/locks has the process.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from deferfs.mount.host import mountinfo
from deferfs.mount.host.users import name_of
from deferfs.printable import printable


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that holds a lock; `shared` when the lock excludes writers only. Its text is safe for a terminal."""

    pid: int
    name: str
    shared: bool

    def __str__(self) -> str:
        return printable(f"{self.name} (pid {self.pid})")


def holders_of(path: str, *, proc: str = "/proc") -> list[Holder]:
    """The processes that hold a lock on the file at `path`, as far as this user can see; empty when there is no such
    file. Never waits."""
    identity = _identity(path, proc)
    if identity is None:
        return []
    found: dict[int, bool] = {}
    for pid in filter(str.isdigit, os.listdir(proc)):
        for shared in _locks_on(identity, _descriptors(f"{proc}/{pid}")):
            found[int(pid)] = shared and found.get(int(pid), True)
    if not found:
        for line in _lines(f"{proc}/locks"):
            lock = _parse(line)
            if lock is not None and lock.file == identity and lock.pid > 0:
                found[lock.pid] = lock.shared
    return [Holder(pid, name_of(f"{proc}/{pid}"), shared) for pid, shared in sorted(found.items())]


def _identity(path: str, proc: str) -> str | None:
    """The file as lists of locks identify it: `MAJOR:MINOR:INODE`, in hexadecimal and decimal. The device is that of
    its mount, which may differ from that of stat(2), e.g. on btrfs."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        known = dict(line.split(":", 1) for line in _lines(f"{proc}/self/fdinfo/{fd}") if ":" in line)
        status = os.fstat(fd)
    finally:
        os.close(fd)
    device = mountinfo.device_of(int(known.get("mnt_id", "0")), f"{proc}/self")
    major, minor = map(int, device.split(":")) if device else (os.major(status.st_dev), os.minor(status.st_dev))
    return f"{major:02x}:{minor:02x}:{known.get('ino', str(status.st_ino)).strip()}"


def _descriptors(process: str) -> Iterator[str]:
    """The lines of all fdinfo files of a process."""
    try:
        names = os.listdir(f"{process}/fdinfo")
    except OSError:  # it has ended, or belongs to another user
        return
    for name in names:
        yield from _lines(f"{process}/fdinfo/{name}")


def _locks_on(identity: str, lines: Iterator[str]) -> Iterator[bool]:
    """For each lock on that file, whether it is shared."""
    for line in lines:
        if line.startswith("lock:"):
            lock = _parse(line.removeprefix("lock:"))
            if lock is not None and lock.file == identity:
                yield lock.shared


@dataclass(frozen=True, slots=True)
class _Lock:
    pid: int
    file: str
    shared: bool


def _parse(line: str) -> _Lock | None:
    """Parses `1: FLOCK  ADVISORY  WRITE 4711 fe:01:1234 0 EOF`; None for a lock that is only waited for
    (`1: -> FLOCK ...`)."""
    words = line.split()
    if len(words) < 6 or words[1] == "->":
        return None
    _, _kind, _, access, pid, file = words[:6]
    return _Lock(int(pid), file, access == "READ")


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
            return list(file)
    except OSError:
        return []
