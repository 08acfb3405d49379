"""Large and deep directories, readdir while they change, and every way to rename."""

from __future__ import annotations

import ctypes
import errno
import os
import random
import stat
from pathlib import Path

import pytest

from tests.mounted.expect import fails_with
from tests.mounted.scratch import Scratch, run

pytestmark = pytest.mark.mounted

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.fdopendir.restype = LIBC.readdir64.restype = ctypes.c_void_p
LIBC.telldir.restype = ctypes.c_long
LIBC.telldir.argtypes = LIBC.readdir64.argtypes = LIBC.closedir.argtypes = [ctypes.c_void_p]
LIBC.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]
_AT_FDCWD = -100
_NAME_OFFSET = 19
"""Of d_name in struct dirent64."""
NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4


def renameat2(old: Path, new: Path, flags: int) -> None:
    if LIBC.renameat2(_AT_FDCWD, bytes(old), _AT_FDCWD, bytes(new), flags):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class Stream:
    """A C directory stream: telldir and seekdir."""

    def __init__(self, path: Path) -> None:
        self._stream = LIBC.fdopendir(os.open(path, os.O_RDONLY | os.O_DIRECTORY))

    def read(self) -> str | None:
        while found := LIBC.readdir64(self._stream):
            name = ctypes.string_at(found + _NAME_OFFSET).decode()
            if name not in (".", ".."):
                return name
        return None

    def tell(self) -> int:
        return int(LIBC.telldir(self._stream))

    def seek(self, position: int) -> None:
        LIBC.seekdir(self._stream, position)

    def close(self) -> None:
        LIBC.closedir(self._stream)


def test_readdir_while_entries_come_and_go(scratch: Scratch) -> None:
    """Each entry that is there all the time is seen exactly once."""
    directory = scratch.mount() / "directory"
    directory.mkdir()
    for number in range(2000):
        (directory / f"stays{number}").touch()
        (directory / f"goes{number}").touch()
    expected = set(os.listdir(directory))
    seen = []
    with os.scandir(directory) as entries:
        for count, entry in enumerate(entries):
            seen.append(entry.name)
            if count % 2 == 0 and count < 4000:
                (directory / f"goes{count // 2}").unlink()
                (directory / f"comes{count}").touch()
                expected ^= {f"goes{count // 2}", f"comes{count}"}
    stays = sorted(name for name in seen if name.startswith("stays"))
    assert stays == sorted(f"stays{number}" for number in range(2000))
    assert len(seen) == len(set(seen))
    for _ in range(2):
        assert set(os.listdir(directory)) == expected
        scratch.remount()
    scratch.unmount_and_check()


@pytest.mark.long
@pytest.mark.timeout(600)
def test_readdir_of_twenty_thousand_names(scratch: Scratch) -> None:
    directory = scratch.mount() / "directory"
    directory.mkdir()
    names = {f"a rather long name of a file, number {number}" for number in range(20_000)}
    for name in names:
        (directory / name).touch()
    assert sorted(os.listdir(directory)) == sorted(names)
    scratch.remount()
    assert sorted(os.listdir(directory)) == sorted(names)
    run("rm", "-rf", directory)
    scratch.drain()
    scratch.unmount_and_check()


def test_telldir_and_seekdir(plain: Scratch) -> None:
    directory = plain.mount() / "directory"
    directory.mkdir()
    for number in range(1500):
        (directory / f"file{number}").touch()
    stream = Stream(directory)
    positions, names = [stream.tell()], []
    while (name := stream.read()) is not None:
        names.append(name)
        positions.append(stream.tell())
    assert sorted(names) == sorted(f"file{number}" for number in range(1500))
    for index in random.Random(1).sample(range(1500), 40):
        stream.seek(positions[index])
        assert stream.read() == names[index]
    (directory / names[700]).unlink()
    stream.seek(positions[701])
    assert stream.read() == names[701]
    stream.close()
    plain.unmount_and_check()


def test_deep_tree(plain: Scratch) -> None:
    """300 levels: `ls -laR`, find and rm get to the bottom."""
    mount = plain.mount()
    here = os.open(mount, os.O_RDONLY | os.O_DIRECTORY)
    for level in range(300):
        os.mkdir("level", dir_fd=here)
        deeper = os.open("level", os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = deeper
        descriptor = os.open(f"file{level}", os.O_WRONLY | os.O_CREAT, dir_fd=here)
        os.close(descriptor)
    os.close(here)
    plain.remount()
    assert len(run("find", mount, "-type", "f").stdout.splitlines()) == 300
    listing = run("ls", "-laR", mount).stdout
    assert listing.count("file") == 300
    assert "total" in listing
    assert (mount / "level").stat().st_nlink == 3
    run("rm", "-rf", mount / "level")
    plain.drain()
    plain.unmount_and_check()


def test_link_counts_of_directories(plain: Scratch) -> None:
    mount = plain.mount()
    (mount / "a" / "b" / "c").mkdir(parents=True)
    (mount / "a" / "d").mkdir()
    (mount / "a" / "b" / "c").rename(mount / "c")
    renameat2(mount / "a" / "d", mount / "c", EXCHANGE)
    (mount / "file").touch()
    renameat2(mount / "file", mount / "a" / "b", EXCHANGE)
    plain.remount()
    assert stat.S_ISDIR((mount / "file").stat().st_mode)
    assert mount.stat().st_nlink == 5
    assert (mount / "a").stat().st_nlink == 3
    assert (mount / "file").stat().st_nlink == 2
    with fails_with(errno.ENOTEMPTY):
        (mount / "a").rmdir()
    plain.unmount_and_check()


def test_rename(scratch: Scratch) -> None:
    mount = scratch.mount()
    for name in ("one", "two"):
        (mount / name).write_text(name)
    for name in ("full", "empty"):
        (mount / name).mkdir()
    (mount / "full" / "file").touch()

    with fails_with(errno.EEXIST):
        renameat2(mount / "one", mount / "two", NOREPLACE)
    with fails_with(errno.ENOENT):
        renameat2(mount / "one", mount / "three", EXCHANGE)
    with fails_with(errno.EINVAL):
        renameat2(mount / "one", mount / "two", NOREPLACE | EXCHANGE)
    with fails_with(errno.EINVAL):
        renameat2(mount / "one", mount / "two", WHITEOUT | EXCHANGE)
    with fails_with(errno.EINVAL):
        (mount / "full").rename(mount / "full" / "inside")
    with fails_with(errno.ENOTEMPTY, errno.EEXIST):
        (mount / "empty").rename(mount / "full")
    with fails_with(errno.EISDIR):
        (mount / "one").rename(mount / "empty")
    with fails_with(errno.ENOTDIR):
        (mount / "empty").rename(mount / "one")
    with fails_with(errno.ENAMETOOLONG):
        (mount / "one").rename(mount / ("x" * 256))

    renameat2(mount / "one", mount / "two", EXCHANGE)
    assert (mount / "one").read_text() == "two"
    (mount / "one").rename(mount / "one")
    (mount / "full").rename(mount / "empty")
    renameat2(mount / "two", mount / "empty" / "moved", NOREPLACE)
    os.link(mount / "one", mount / "same")
    (mount / "one").rename(mount / "same")  # two names of one file: nothing happens
    scratch.remount()
    assert sorted(os.listdir(mount)) == ["empty", "one", "same"]
    assert sorted(os.listdir(mount / "empty")) == ["file", "moved"]
    assert (mount / "empty" / "moved").read_text() == "one"
    assert (mount / "same").read_text() == "two"
    scratch.drain()
    scratch.unmount_and_check()


def test_rename_over_an_open_file(scratch: Scratch) -> None:
    mount = scratch.mount()
    (mount / "old").write_text("old")
    with (mount / "old").open() as file:
        for number in range(50):
            (mount / "new").write_text(f"new {number}")
            (mount / "new").rename(mount / "old")
        assert file.read() == "old"
        assert os.fstat(file.fileno()).st_nlink == 0
    assert (mount / "old").read_text() == "new 49"
    scratch.drain()
    scratch.unmount_and_check()


def test_names(plain: Scratch) -> None:
    mount = plain.mount()
    names = [b"x" * 255, b" ", b"\n", b"\xff\xfe", b"...", b"-", "\u00e4".encode(), "a\u0308".encode(), b"A", b"a"]
    for name in names:
        descriptor = os.open(bytes(mount) + b"/" + name, os.O_CREAT | os.O_WRONLY)
        os.write(descriptor, name)
        os.close(descriptor)
    with fails_with(errno.ENAMETOOLONG):
        (mount / ("x" * 256)).touch()
    plain.remount()
    assert sorted(os.listdir(bytes(mount))) == sorted(names)
    for name in names:
        with open(bytes(mount) + b"/" + name, "rb") as file:
            assert file.read() == name
    plain.unmount_and_check()
