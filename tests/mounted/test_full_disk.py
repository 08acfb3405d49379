"""A full disk: the writer is told, nothing else is lost, deletes work, and all space comes back."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import sqlite3
from pathlib import Path
from typing import BinaryIO

import pytest

from tests.mounted.conftest import MakeScratch
from tests.mounted.expect import fails_with
from tests.mounted.scratch import Scratch, run
from tests.mounted.trees import assert_same, snapshot

pytestmark = pytest.mark.mounted
SIZE_BYTES = 16 << 20
BLOCK_BYTES = 4096


@pytest.fixture
def small(make_scratch: MakeScratch, evict: str) -> Scratch:
    """A small image, not mounted yet."""
    return make_scratch(evict=evict, size=f"{SIZE_BYTES >> 20}M", format_options=["--journal-size", "2M"])


def settle(mount: Path) -> None:
    """A few files that must survive everything."""
    (mount / "settled").mkdir()
    for number in range(20):
        (mount / "settled" / f"file{number}").write_bytes(os.urandom(number * 997))


def fill(path: Path) -> None:
    """Write until there is no space. With the writeback cache, it is fsync that tells."""

    def write() -> None:
        with path.open("wb", buffering=0) as file:
            for _ in range(0, 2 * SIZE_BYTES, 1 << 16):
                file.write(os.urandom(1 << 16))
            os.fsync(file.fileno())

    with fails_with(errno.ENOSPC):
        write()


@pytest.mark.parametrize("cache", ["on", "off"])
def test_a_full_disk_is_reported_to_the_writer_and_loses_nothing_else(small: Scratch, cache: str) -> None:
    options = f"writeback_cache={cache}"
    mount = small.mount(options)
    settle(mount)
    settled = snapshot(mount / "settled")
    small.drain(lost_writes=True)
    before = small.space()
    for _ in range(3):
        fill(mount / "big")
        assert_same(settled, snapshot(mount / "settled"))
        if cache == "off":  # else the writer may be told before the kernel has handed over all that it took
            assert os.statvfs(mount).f_bavail == 0
        (mount / "big").unlink()
        small.drain(lost_writes=True)
        assert small.space() == before
    fill(mount / "big")
    small.remount(options)
    assert_same(settled, snapshot(mount / "settled"))
    small.unmount_and_check()


@pytest.mark.parametrize("cache", ["on", "off"])
def test_large_writes_take_the_last_block(small: Scratch, cache: str) -> None:
    """A write for which there is not enough space writes what there is space for."""
    mount = small.mount(f"writeback_cache={cache}")
    data = os.urandom(1_000_000)
    written = 0
    with (mount / "big").open("w+b", buffering=0) as file:
        with fails_with(errno.ENOSPC):
            while written < 2 * SIZE_BYTES:
                written += file.write(data[written % len(data) :])
            os.fsync(file.fileno())  # the cache takes everything
        with contextlib.suppress(OSError):
            os.fsync(file.fileno())
        assert os.statvfs(mount).f_bavail == 0
        stored = os.fstat(file.fileno()).st_blocks * 512
    if cache == "off":
        assert (mount / "big").stat().st_size == written == stored
    small.remount(f"writeback_cache={cache}")
    with (mount / "big").open("rb") as file:
        if cache == "off":
            assert all(file.read(len(data)) == data for _ in range(stored // len(data)))
            assert file.read(stored % len(data)) == data[: stored % len(data)]
        else:
            assert blocks_held(file, data) * BLOCK_BYTES == stored
    small.unmount_and_check()


def write_back(file: BinaryIO, offset: int, length: int) -> None:
    """Have the kernel write this part of its cache back before the others."""
    with mmap.mmap(file.fileno(), length, offset=offset) as mapped:
        mapped.flush()


def blocks_held(file: BinaryIO, data: bytes) -> int:
    """Blocks of a file that hold `data`, again and again; all others are holes. In which order the kernel writes its
    cache back, until the disk is full, is its affair."""
    content = file.read()
    wanted = data * (len(content) // len(data) + 1)
    held = 0
    for at in range(0, len(content), BLOCK_BYTES):
        piece = content[at : at + BLOCK_BYTES]
        if any(piece):
            assert piece == wanted[at : at + len(piece)]
            held += 1
    return held


def test_dd_and_cp(small: Scratch, tmp_path: Path) -> None:
    """As people do it: dd and cp say what is wrong; `rm big && dd` of the same size works at once, again and again."""
    mount = small.mount()
    settle(mount)
    small.drain(lost_writes=True)
    before = small.space()
    source = tmp_path / "source"
    source.write_bytes(os.urandom(SIZE_BYTES))
    done = run("dd", f"if={source}", f"of={mount}/big", "bs=64k", code=1)
    assert "No space left on device" in done.stderr
    done = run("cp", source, mount / "another", code=1)
    assert "No space left on device" in done.stderr
    (mount / "another").unlink(missing_ok=True)
    (mount / "big").unlink()
    small.drain(lost_writes=True)
    assert small.space() == before
    bytes_free = os.statvfs(mount).f_bavail * 4096 * 95 // 100
    for _ in range(4):
        run("dd", f"if={source}", f"of={mount}/big", "bs=64k", f"count={bytes_free}", "iflag=count_bytes")
        assert (mount / "big").read_bytes() == source.read_bytes()[:bytes_free]
        (mount / "big").unlink()
    small.drain(lost_writes=True)
    assert small.space() == before
    small.unmount_and_check()


@pytest.mark.each_policy
def test_a_program_that_only_ever_writes_gets_enospc(small: Scratch) -> None:
    """Not at close alone, which would never come. What has blocks can still be overwritten, and space is used again."""
    if not Path("/proc/self/syscall").exists() or os.uname().machine not in ("x86_64", "aarch64"):
        pytest.skip("the daemon cannot see what is being written here")
    mount = small.mount()
    done = run("dd", "if=/dev/zero", f"of={mount}/big", "bs=64k", code=1)
    assert "error writing" in done.stderr
    assert "No space left on device" in done.stderr
    run("sh", "-c", f"exec cat /dev/zero >> {mount}/big", code=1)
    with (mount / "big").open("r+b", buffering=0) as file:
        with contextlib.suppress(OSError):
            os.fsync(file.fileno())  # may report what the others have lost
        file.write(b"in place")
        os.fsync(file.fileno())
        with fails_with(errno.ENOSPC):
            for number in range(SIZE_BYTES >> 15):
                os.pwrite(file.fileno(), os.urandom(1 << 16), SIZE_BYTES + (number << 16))
            os.fsync(file.fileno())
        assert os.fstat(file.fileno()).st_size > SIZE_BYTES // 2
        with contextlib.suppress(OSError):
            os.fsync(file.fileno())
        os.pwrite(file.fileno(), b"again", 0)
        os.ftruncate(file.fileno(), 100_000)
        assert os.pwrite(file.fileno(), bytes(1 << 16), 1 << 20) == 1 << 16
        os.fsync(file.fileno())
        assert os.pread(file.fileno(), 8, 0) == b"againace"
    small.unmount_and_check()


@pytest.mark.each_policy
def test_operations_that_free_space_work_on_a_full_disk(small: Scratch) -> None:
    """Down to the last block; then unlink, rmdir, truncate and rename over, files open or not."""
    mount = small.mount("writeback_cache=off")
    fresh = small.space()
    directory = mount / "directory"
    directory.mkdir()
    for number in range(250):
        (directory / f"early{number}").write_bytes(bytes(6000))
    (mount / "large").write_bytes(bytes(1_000_000))
    fill(mount / "big")
    number = 0
    with fails_with(errno.ENOSPC):
        while number < 20_000:
            (directory / f"late{number}").mkdir()
            number += 1
    with fails_with(errno.ENOSPC), (mount / "large").open("ab", buffering=0) as file:
        while file.tell() < SIZE_BYTES:
            file.write(bytes(4096))
    assert os.statvfs(mount).f_bavail == 0
    with fails_with(errno.ENOSPC):
        os.setxattr(mount / "large", "user.large", bytes(60_000))
    opened = [os.open(directory / f"early{index}", os.O_RDWR) for index in range(200)]
    for index in range(200):
        (directory / f"early{index}").unlink()
    os.truncate(mount / "large", 123_457)
    (directory / "early200").rename(directory / "early201")
    for descriptor in opened:
        os.ftruncate(descriptor, 5000)
        os.close(descriptor)
    assert (mount / "large").read_bytes() == bytes(123_457)
    run("rm", "-r", *mount.iterdir())
    small.drain(lost_writes=True)
    assert small.space() == fresh
    small.remount()
    assert small.space() == fresh
    small.unmount_and_check()


def test_sqlite_on_a_full_disk(small: Scratch) -> None:
    """The transaction that does not fit fails; the database is sound, and goes on when there is space again."""
    mount = small.mount()
    (mount / "ballast").write_bytes(os.urandom(4 << 20))
    connection = sqlite3.connect(mount / "database", isolation_level=None)
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE numbers (number INTEGER PRIMARY KEY, data BLOB)")
    inserted = 0
    while True:
        try:
            connection.execute("INSERT INTO numbers VALUES (?, ?)", (inserted, os.urandom(500_000)))
        except sqlite3.OperationalError:  # "database or disk is full", or "disk I/O error" when fsync tells
            break
        inserted += 1
        assert inserted * 500_000 < SIZE_BYTES
    connection.close()
    (mount / "ballast").unlink()
    connection = sqlite3.connect(mount / "database", isolation_level=None)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert connection.execute("SELECT count(*) FROM numbers").fetchone() == (inserted,)
    connection.execute("INSERT INTO numbers VALUES (?, ?)", (inserted, os.urandom(500_000)))
    connection.close()
    small.unmount_and_check()
