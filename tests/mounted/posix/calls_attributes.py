"""Calls on attributes: modes, owners, times, extended attributes, access control lists, the filesystem's numbers."""

from __future__ import annotations

import os
import stat
import struct
import time
from typing import Final

from tests.mounted.posix import libc
from tests.mounted.posix.machine import Case, call

_NANOS: Final = 1_000_000_000
_COARSE: Final = 5
"""CLOCK_REALTIME_COARSE."""


# --- modes and owners ---
@call
def chmod(case: Case, path: bytes, mode: int) -> None:
    os.chmod(path, mode)


@call
def fchmod(case: Case, descriptor: int, mode: int) -> None:
    os.fchmod(descriptor, mode)


@call
def chown(case: Case, path: bytes, uid: int, gid: int) -> None:
    os.chown(path, uid, gid)


@call
def lchown(case: Case, path: bytes, uid: int, gid: int) -> None:
    os.chown(path, uid, gid, follow_symlinks=False)


@call
def fchown(case: Case, descriptor: int, uid: int, gid: int) -> None:
    os.fchown(descriptor, uid, gid)


@call
def umask(case: Case, mask: int) -> None:
    os.umask(mask)


@call
def access(case: Case, path: bytes, mode: int) -> bool:
    """faccessat(2) with the effective ids."""
    return os.access(path, mode, effective_ids=True)


@call
def mode(case: Case, path: bytes) -> str:
    return f"{stat.S_IMODE(os.lstat(path).st_mode):04o}"


@call
def fmode(case: Case, descriptor: int) -> str:
    return f"{stat.S_IMODE(os.fstat(descriptor).st_mode):04o}"


@call
def owner(case: Case, path: bytes) -> str:
    status = os.lstat(path)
    return f"{status.st_uid}:{status.st_gid}"


# --- numbers of stat(2) ---
@call
def size(case: Case, path: bytes) -> int:
    return os.lstat(path).st_size


@call
def fsize(case: Case, descriptor: int) -> int:
    return os.fstat(descriptor).st_size


@call
def nlink(case: Case, path: bytes) -> int:
    return os.lstat(path).st_nlink


@call
def fnlink(case: Case, descriptor: int) -> int:
    return os.fstat(descriptor).st_nlink


@call
def blocks(case: Case, path: bytes) -> int:
    """st_blocks, after what was written has got its blocks."""
    if stat.S_ISREG(os.lstat(path).st_mode):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    return os.lstat(path).st_blocks


@call
def device(case: Case, path: bytes) -> str:
    number = os.lstat(path).st_rdev
    return f"{os.major(number)}:{os.minor(number)}"


@call
def stat_(case: Case, path: bytes) -> None:
    os.stat(path)


@call
def lstat(case: Case, path: bytes) -> None:
    os.lstat(path)


@call
def blksize(case: Case, path: bytes) -> int:
    return os.lstat(path).st_blksize


# --- times ---
@call
def utime(case: Case, path: bytes, atime: int, mtime: int) -> None:
    """utimensat(2), ns; NOW and OMIT."""
    libc.utimensat(-100, path, _timespec(atime), _timespec(mtime), 0)


@call
def lutime(case: Case, path: bytes, atime: int, mtime: int) -> None:
    libc.utimensat(-100, path, _timespec(atime), _timespec(mtime), 0x100)


@call
def utime_raw(case: Case, path: bytes, seconds: int, nanoseconds: int) -> None:
    """utimensat(2), both times."""
    libc.utimensat(-100, path, (seconds, nanoseconds), (seconds, nanoseconds), 0)


def _timespec(nanoseconds: int) -> tuple[int, int]:
    if nanoseconds == -1:
        return 0, (1 << 30) - 1
    if nanoseconds == -2:
        return 0, (1 << 30) - 2
    return divmod(nanoseconds, _NANOS)


@call
def atime(case: Case, path: bytes) -> int:
    return os.lstat(path).st_atime_ns


@call
def mtime(case: Case, path: bytes) -> int:
    return os.lstat(path).st_mtime_ns


@call
def mark(case: Case, path: bytes) -> None:
    """Remember the times, and wait until the clock that filesystems use has gone past them."""
    status = os.lstat(path)
    case.marks[path] = status
    latest = max(status.st_mtime_ns, status.st_ctime_ns)
    now = time.clock_gettime_ns(_COARSE)
    if latest > now + _NANOS:
        latest = status.st_ctime_ns  # mtime was set to the future
    while time.clock_gettime_ns(_COARSE) <= latest:
        time.sleep(0.0005)


@call
def moved(case: Case, path: bytes, marked: bytes = b"") -> str:
    """Which times are not those of the mark (of another name, if given): some of `amc`, or `none`."""
    before, now = case.marks[marked or path], os.lstat(path)
    return (
        "a" * (now.st_atime_ns != before.st_atime_ns)
        + "m" * (now.st_mtime_ns != before.st_mtime_ns)
        + "c" * (now.st_ctime_ns != before.st_ctime_ns)
    ) or "none"


@call
def changed(case: Case, path: bytes, marked: bytes = b"") -> str:
    """As `moved`, but for content and status alone: some of `mc`."""
    return moved(case, path, marked).replace("a", "") or "none"


@call
def forward(case: Case, path: bytes) -> bool:
    """Whether ctime is now and later than at the mark."""
    now = os.lstat(path).st_ctime_ns
    return case.marks[path].st_ctime_ns < now <= time.time_ns()


# --- extended attributes ---
@call
def setxattr(case: Case, path: bytes, name: bytes, value: bytes, flags: int = 0) -> None:
    libc.setxattr(path, name, value, flags)


@call
def lsetxattr(case: Case, path: bytes, name: bytes, value: bytes, flags: int = 0) -> None:
    os.setxattr(path, name, value, flags, follow_symlinks=False)


@call
def fsetxattr(case: Case, descriptor: int, name: bytes, value: bytes, flags: int = 0) -> None:
    os.setxattr(descriptor, name, value, flags)


@call
def getxattr(case: Case, path: bytes, name: bytes) -> bytes:
    return os.getxattr(path, name)


@call
def lgetxattr(case: Case, path: bytes, name: bytes) -> bytes:
    return os.getxattr(path, name, follow_symlinks=False)


@call
def fgetxattr(case: Case, descriptor: int, name: bytes) -> bytes:
    return os.getxattr(descriptor, name)


@call
def getxattr_into(case: Case, path: bytes, name: bytes, size: int) -> int:
    """With a buffer of `size` bytes (0 asks how large it must be); the length."""
    return libc.getxattr(path, name, size)


@call
def listxattr_into(case: Case, path: bytes, size: int) -> int:
    return libc.listxattr(path, size)


@call
def listxattr(case: Case, path: bytes) -> list[str]:
    return _listed(os.listxattr(path))


@call
def llistxattr(case: Case, path: bytes) -> list[str]:
    return _listed(os.listxattr(path, follow_symlinks=False))


def _listed(names: list[str]) -> list[str]:
    """Without what the system itself adds: XFS shows its lists a second time."""
    return sorted(name for name in names if name != "security.selinux" and not name.startswith("trusted.SGI_"))


@call
def removexattr(case: Case, path: bytes, name: bytes) -> None:
    os.removexattr(path, name)


@call
def lremovexattr(case: Case, path: bytes, name: bytes) -> None:
    os.removexattr(path, name, follow_symlinks=False)


@call
def xattrs_many(case: Case, path: bytes, count: int, size: int) -> None:
    """Attributes user.0, user.1, ... with values of `size` bytes."""
    for number in range(count):
        os.setxattr(path, b"user.%d" % number, bytes([number % 251]) * size)


@call
def xattrs_fill(case: Case, path: bytes, size: int) -> int:
    """Set attributes until one is refused; how many there are. OSError is only what ENOSPC and E2BIG are not."""
    for number in range(100_000):
        try:
            os.setxattr(path, b"user.%d" % number, bytes(size))
        except OSError as error:
            if error.errno not in (28, 7):
                raise
            break
    return len(os.listxattr(path))


# --- access control lists ---
_TAGS: Final = {"u": (0x01, 0x02), "g": (0x04, 0x08), "m": (0x10, 0x10), "o": (0x20, 0x20)}
_UNDEFINED: Final = 0xFFFFFFFF


def packed(text: str) -> bytes:
    """`u::rw-,u:1001:r--,g::r--,m::r--,o::---` as the kernel's extended attribute."""
    entries = []
    for part in text.split(","):
        tag, who, bits = part.split(":")
        number = _TAGS[tag][bool(who)]
        value = sum(bit for bit, letter in zip((4, 2, 1), bits, strict=True) if letter != "-")
        entries.append(struct.pack("<HHI", number, value, int(who) if who else _UNDEFINED))
    return struct.pack("<I", 2) + b"".join(entries)


def unpacked(value: bytes) -> str:
    """The other way round."""
    letters = {number: tag for tag, numbers in _TAGS.items() for number in numbers}
    parts = []
    for tag, bits, who in struct.iter_unpack("<HHI", value[4:]):
        rights = "".join(letter if bits & bit else "-" for bit, letter in ((4, "r"), (2, "w"), (1, "x")))
        parts.append(f"{letters[tag]}:{'' if who == _UNDEFINED else who}:{rights}")
    return ",".join(parts)


@call
def setacl(case: Case, path: bytes, entries: str) -> None:
    os.setxattr(path, "system.posix_acl_access", packed(entries))


@call
def setdefault(case: Case, path: bytes, entries: str) -> None:
    os.setxattr(path, "system.posix_acl_default", packed(entries))


@call
def acl(case: Case, path: bytes) -> str:
    return unpacked(os.getxattr(path, "system.posix_acl_access"))


@call
def default(case: Case, path: bytes) -> str:
    return unpacked(os.getxattr(path, "system.posix_acl_default"))


@call
def rawacl(case: Case, path: bytes, value: bytes) -> None:
    os.setxattr(path, "system.posix_acl_access", value)


@call
def dropacl(case: Case, path: bytes) -> None:
    os.removexattr(path, "system.posix_acl_access")


@call
def dropdefault(case: Case, path: bytes) -> None:
    os.removexattr(path, "system.posix_acl_default")


# --- the filesystem ---
@call
def pathconf(case: Case, path: bytes, name: str) -> int:
    return os.pathconf(path, name)


@call
def statvfs(case: Case, path: bytes, field: str) -> int:
    return int(getattr(os.statvfs(path), field))
