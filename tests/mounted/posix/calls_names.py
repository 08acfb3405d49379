"""Calls on names: make, link, rename, remove, look."""

from __future__ import annotations

import errno
import os
import socket
import stat

from tests.mounted.posix import libc
from tests.mounted.posix.machine import Case, Descriptor, call

_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "dir",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
}


# --- situations: made with exactly the given mode, whatever the umask ---
@call
def touch(case: Case, path: bytes, mode: int = 0o644) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    os.chmod(path, mode)


@call
def file(case: Case, path: bytes, content: bytes, mode: int = 0o644) -> None:
    touch(case, path, mode)
    descriptor = os.open(path, os.O_WRONLY)
    os.write(descriptor, content)
    os.close(descriptor)
    os.chmod(path, mode)


@call
def dir_(case: Case, path: bytes, mode: int = 0o755) -> None:
    os.mkdir(path)
    os.chmod(path, mode)


@call
def make(case: Case, kind: str, path: bytes) -> None:
    """One of each kind: file, dir, full (a directory with an entry), symlink, fifo, socket, char, block; or none."""
    if kind == "file":
        touch(case, path)
    elif kind in ("dir", "full"):
        os.mkdir(path)
        if kind == "full":
            touch(case, path + b"/entry")
    elif kind == "symlink":
        os.symlink(b"nowhere", path)
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        sock(case, path)
    elif kind in ("char", "block"):
        os.mknod(path, 0o600 | (stat.S_IFCHR if kind == "char" else stat.S_IFBLK), os.makedev(1, 3))
    elif kind != "none":
        raise ValueError(kind)


@call
def sock(case: Case, path: bytes) -> None:
    """A socket, by bind(2)."""
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(path)


@call
def names_many(case: Case, path: bytes, prefix: bytes, count: int) -> None:
    """Files called PREFIX0, PREFIX1, ..."""
    for number in range(count):
        os.mknod(path + b"/" + prefix + b"%d" % number, 0o600 | stat.S_IFREG)


@call
def remove_many(case: Case, path: bytes, prefix: bytes, count: int) -> None:
    for number in range(count):
        os.unlink(path + b"/" + prefix + b"%d" % number)


@call
def links_many(case: Case, path: bytes, prefix: bytes, count: int) -> None:
    """Further names of a file: PREFIX0, PREFIX1, ..."""
    for number in range(count):
        os.link(path, prefix + b"%d" % number)


@call
def dirs_deep(case: Case, count: int) -> None:
    """A chain of directories called `d`, and the working directory at its end."""
    for _ in range(count):
        os.mkdir(b"d")
        os.chdir(b"d")


@call
def chain(case: Case, count: int, target: bytes) -> None:
    """Symbolic links l1 -> TARGET, l2 -> l1, ... lCOUNT."""
    for number in range(1, count + 1):
        os.symlink(target if number == 1 else b"l%d" % (number - 1), b"l%d" % number)


# --- the calls themselves ---
@call
def creat(case: Case, path: bytes, mode: int) -> Descriptor:
    return Descriptor(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode))


@call
def mkdir(case: Case, path: bytes, mode: int = 0o777) -> None:
    os.mkdir(path, mode)


@call
def mkfifo(case: Case, path: bytes, mode: int = 0o644) -> None:
    os.mkfifo(path, mode)


@call
def mknod(case: Case, path: bytes, mode: int, major: int = 0, minor: int = 0) -> None:
    libc.mknod(path, mode, os.makedev(major, minor))


@call
def symlink(case: Case, target: bytes, path: bytes) -> None:
    os.symlink(target, path)


@call
def link(case: Case, old: bytes, new: bytes) -> None:
    os.link(old, new, follow_symlinks=False)


@call
def linkat(case: Case, old_directory: int, old: bytes, new_directory: int, new: bytes, flags: int = 0) -> None:
    libc.linkat(old_directory, old, new_directory, new, flags)


@call
def unlink(case: Case, path: bytes) -> None:
    os.unlink(path)


@call
def unlinkat(case: Case, directory: int, path: bytes, flags: int = 0) -> None:
    libc.unlinkat(directory, path, flags)


@call
def rmdir(case: Case, path: bytes) -> None:
    os.rmdir(path)


@call
def rename(case: Case, old: bytes, new: bytes, flags: int = 0) -> None:
    if flags:
        libc.renameat2(old, new, flags)
    else:
        os.rename(old, new)


@call
def readlink(case: Case, path: bytes, size: int = 4096) -> bytes:
    return libc.readlink(path, size)


# --- looking ---
@call
def kind(case: Case, path: bytes) -> str:
    """What is there: file, dir, symlink, ... or none."""
    try:
        return _KINDS[stat.S_IFMT(os.lstat(path).st_mode)]
    except FileNotFoundError:
        return "none"


@call
def whiteout(case: Case, path: bytes) -> bool:
    """Whether there is a character device 0:0."""
    status = os.lstat(path)
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


@call
def names(case: Case, path: bytes) -> list[bytes]:
    return sorted(os.listdir(path))


@call
def count(case: Case, path: bytes) -> int:
    return len(os.listdir(path))


@call
def scan(case: Case, path: bytes) -> list[str]:
    """Each entry with the kind that readdir(3) tells."""
    found = []
    for entry in sorted(os.scandir(path), key=lambda entry: entry.name):
        link = entry.is_symlink()
        directory = entry.is_dir(follow_symlinks=False)
        plain = entry.is_file(follow_symlinks=False)
        found.append(f"{os.fsdecode(entry.name)}:{'l' if link else 'd' if directory else 'f' if plain else 'o'}")
    return found


@call
def same(case: Case, one: bytes, other: bytes) -> bool:
    """Whether two names are of one inode."""
    return os.path.samestat(os.lstat(one), os.lstat(other))


@call
def cwd(case: Case) -> bytes:
    """The last component of the working directory's path."""
    return os.getcwdb().rpartition(b"/")[2]


@call
def chdir(case: Case, path: bytes) -> None:
    os.chdir(path)


@call
def fchdir(case: Case, descriptor: int) -> None:
    os.fchdir(descriptor)


@call
def handle(case: Case, path: bytes) -> None:
    """Keep the file handle of a file, as an NFS server does; `by_handle` opens it."""
    found = libc.name_to_handle(path)
    case.handles.append(found)


@call
def by_handle(case: Case, flags: int = 0) -> Descriptor:
    anchor = os.open(b".", os.O_RDONLY)
    try:
        return Descriptor(libc.open_by_handle(anchor, case.handles[-1], flags))
    finally:
        os.close(anchor)


@call
def drop_names(case: Case) -> None:
    """Have the kernel forget clean names and inodes."""
    try:
        with open("/proc/sys/vm/drop_caches", "w") as control:
            control.write("2\n")
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EROFS):
            raise
