"""Files that the daemon or a command writes for its user: logs, timelines, results.

A path given for output may lead to anything: a FIFO without a reader, on which an ordinary open blocks for ever; a
disk; the mounted image. So no open here blocks, nothing is truncated before its type is known, and a deferfs image is
never written to.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

from deferfs.errors import UsageError
from deferfs.ondisk.format import SUPERBLOCK_OFFSETS
from deferfs.ondisk.superblock import MAGIC

_MAGIC_AT: Final = 4
"""Offset of the magic in a superblock, in bytes."""
_KINDS: Final = {
    stat.S_IFDIR: "a directory",
    stat.S_IFBLK: "a block device",
    stat.S_IFCHR: "a character device",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFLNK: "a symbolic link",
}
_STREAMS: Final = frozenset((stat.S_IFIFO, stat.S_IFCHR))
"""File types that are written at the current position and retain nothing that could be lost."""


def create_file(path: str) -> int:
    """A descriptor of a new regular file readable by its owner only. UsageError when `path` exists."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o600)
    except FileExistsError:
        raise UsageError(f"{path}: exists already; name a file that does not exist yet") from None
    except OSError as error:
        raise _refused(path, error) from error


def append_file(path: str) -> int:
    """A descriptor that appends to a regular file, created if missing. UsageError for any other file, symbolic links
    included, and for an image."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise _refused(path, error, follow=False) from error
    return _checked(fd, path)


def replace_file(path: str) -> int:
    """A descriptor for results that replace the content of a regular file, which is truncated, as by `>` of a shell.

    A FIFO with a reader and a character device (a terminal, /dev/null) are accepted, too; standard output and standard
    error, by whatever name, are written at their current positions. UsageError for anything else, and for an image.
    """
    for own in (1, 2):
        if _is_same(path, own):
            return os.dup(own)
    regular = not os.path.exists(path) or _kind(os.stat(path)) == stat.S_IFREG
    access = os.O_RDWR | os.O_CREAT if regular else os.O_WRONLY  # O_RDWR would make us a reader of the FIFO
    try:
        fd = os.open(path, access | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise _refused(path, error) from error
    fd = _checked(fd, path, streams=not regular)
    try:
        if regular:
            os.ftruncate(fd, 0)
        os.set_blocking(fd, True)
    except OSError as error:
        os.close(fd)
        raise _refused(path, error) from error
    return fd


def check_replaceable(path: str) -> None:
    """UsageError when `replace_file` would refuse `path`, as far as can be checked without changing anything: so that
    hours of work do not end with an error."""
    directory = os.path.dirname(path) or "."
    try:
        kind = _kind(os.stat(path))
    except FileNotFoundError:
        if not os.path.isdir(directory):
            raise UsageError(f"{path}: {directory} is not a directory; make it first") from None
        if not os.access(directory, os.W_OK | os.X_OK):
            raise UsageError(f"{path}: cannot be written: {os.strerror(errno.EACCES)}") from None
        return
    except OSError as error:
        raise _refused(path, error) from error
    if kind in _STREAMS or any(_is_same(path, own) for own in (1, 2)):
        return  # opening and closing a FIFO would mean end of file to the reader
    try:
        fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        raise _refused(path, error) from error
    os.close(_checked(fd, path))


def write_results(path: str, data: bytes) -> None:
    """Replace the content of `path` by `data`. UsageError as `replace_file`, and when the write fails."""
    fd = replace_file(path)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
    except BrokenPipeError:
        raise  # as for standard output: the reader has closed the pipe
    except OSError as error:
        raise _refused(path, error) from error
    finally:
        os.close(fd)


def _checked(fd: int, path: str, *, streams: bool = False) -> int:
    """Return `fd` if it may be written to; otherwise close it. UsageError."""
    try:
        kind = _kind(os.fstat(fd))
        if kind != stat.S_IFREG and not (streams and kind in _STREAMS):
            raise UsageError(f"{path}: is {_KINDS.get(kind, 'a special file')}; name a regular file")
        if kind == stat.S_IFREG and _is_image(fd):
            raise UsageError(f"{path}: is an image of deferfs, which would be lost; name another file")
    except BaseException:
        os.close(fd)
        raise
    return fd


def _is_image(fd: int) -> bool:
    return any(os.pread(fd, len(MAGIC), offset + _MAGIC_AT) == MAGIC for offset in SUPERBLOCK_OFFSETS)


def _refused(path: str, error: OSError, *, follow: bool = True) -> UsageError:
    """The UsageError for a failed open or write, with the type of the file at `path`."""
    try:
        kind = _kind(os.stat(path, follow_symlinks=follow))
    except OSError:
        kind = stat.S_IFREG
    if kind == stat.S_IFIFO and error.errno == errno.ENXIO:
        return UsageError(f"{path}: is a FIFO that no process reads; name a regular file")
    if kind in _KINDS and error.errno in (errno.ENXIO, errno.EISDIR, errno.ELOOP):
        return UsageError(f"{path}: is {_KINDS[kind]}; name a regular file")
    return UsageError(f"{path}: cannot be written: {error.strerror or error}; name another file")


def _kind(status: os.stat_result) -> int:
    return stat.S_IFMT(status.st_mode)


def _is_same(path: str, own: int) -> bool:
    """Whether `path` is the file that the descriptor `own` refers to."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(own))
    except OSError:
        return False
