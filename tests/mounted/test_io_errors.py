"""The image cannot be written or read any more: the caller concerned gets EIO, the mount is read-only from then on and
says so, and what had been synced is there after the next mount.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mounted.expect import fails_with
from tests.mounted.scratch import Scratch, deferfs, drop_kernel_caches, run

pytestmark = pytest.mark.mounted

HOST_BYTES = 64 << 20
SYNCED = os.urandom(300_000)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Path]:
    """A small filesystem that the image lies on."""
    directory = tmp_path / "host"
    directory.mkdir()
    run("mount", "-t", "tmpfs", "-o", f"size={HOST_BYTES}", "tmpfs", directory)
    yield directory
    run("umount", directory)


@pytest.fixture(params=["on", "off"])
def cache(request: pytest.FixtureRequest) -> str:
    """The writeback cache."""
    return str(request.param)


@pytest.fixture
def scratch(host: Path, evict: str) -> Iterator[Scratch]:
    """A sparse image that is larger than what it lies on."""
    scratch = Scratch(host / "scratch", evict=evict, size="256M", format_options=["--journal-size", "4M"])
    yield scratch
    scratch.end()


def fill(host: Path) -> Path:
    """Leave no room on the host."""
    path = host / "filler"
    with path.open("wb", buffering=0) as file, fails_with(errno.ENOSPC):
        while file.write(bytes(1 << 16)):
            pass
    return path


def write_and_sync(path: Path, data: bytes) -> None:
    with path.open("wb", buffering=0) as file:
        file.write(data)
        os.fsync(file.fileno())


def test_the_image_cannot_grow(scratch: Scratch, host: Path, cache: str) -> None:
    option = f"writeback_cache={cache}"
    mount = scratch.mount(option)
    write_and_sync(mount / "synced", SYNCED)
    (mount / "directory").mkdir()
    scratch.sync()
    filler = fill(host)
    with fails_with(errno.EIO):
        for number in range(100):
            write_and_sync(mount / f"file{number}", os.urandom(500_000))
    filler.unlink()
    assert (mount / "synced").read_bytes() == SYNCED
    assert scratch.complaints()
    scratch.sync(lost_writes=True)
    statistics = scratch.statistics()
    if statistics.journal.aborted:
        assert_read_only(mount)
        assert "ABORTED" in deferfs("stat", mount).stdout
    deferfs("umount", mount, code=None)
    scratch.log.unlink()
    mount = scratch.mount(option)
    assert (mount / "synced").read_bytes() == SYNCED
    (mount / "after").write_text("works again")
    scratch.unmount_and_check()


def assert_read_only(mount: Path) -> None:
    """Every kind of change is refused, and changes nothing."""
    before = sorted(os.listdir(mount))
    for change in (
        lambda: (mount / "new").touch(),
        lambda: (mount / "new").mkdir(),
        lambda: (mount / "new").symlink_to("x"),
        lambda: os.mkfifo(mount / "new"),
        lambda: os.link(mount / "synced", mount / "new"),
        lambda: (mount / "synced").rename(mount / "new"),
        lambda: (mount / "synced").unlink(),
        lambda: (mount / "directory").rmdir(),
        lambda: (mount / "synced").chmod(0o600),
        lambda: os.setxattr(mount / "synced", "user.x", b"y"),
        lambda: os.truncate(mount / "synced", 5),
    ):
        with fails_with(errno.EROFS, errno.EIO):
            change()
    assert sorted(os.listdir(mount)) == before
    assert (mount / "synced").read_bytes() == SYNCED


def test_the_journal_cannot_be_written(scratch: Scratch, host: Path, cache: str) -> None:
    """Its blocks are punched out of the image below the mount, and the host is full: the next commit fails."""
    option = f"writeback_cache={cache}"
    mount = scratch.mount(option)
    write_and_sync(mount / "synced", SYNCED)
    (mount / "directory").mkdir()
    scratch.sync()
    size = scratch.image.stat().st_size
    run("fallocate", "--dig-holes", scratch.image)  # the part of the log that is full of zeros still
    filler = fill(host)
    handle = os.open(mount / "synced", os.O_RDONLY)
    with fails_with(errno.EIO, errno.EROFS):
        for number in range(20_000):
            (mount / f"name{number}").touch()
            os.fsync(handle)
    os.close(handle)
    filler.unlink()
    assert scratch.statistics().journal.aborted
    assert "ABORTED" in deferfs("stat", mount).stdout
    assert any("abort" in line or "journal" in line or "I/O" in line for line in scratch.complaints())
    assert_read_only(mount)
    deferfs("umount", mount, code=None)
    assert scratch.image.stat().st_size == size
    scratch.log.unlink()
    mount = scratch.mount(option)
    assert (mount / "synced").read_bytes() == SYNCED
    (mount / "after").write_text("works again")
    scratch.unmount_and_check()


@pytest.mark.machine
def test_data_that_cannot_be_read(plain: Scratch) -> None:
    """The image has lost its end: reads there fail with EIO, all other requests are served."""
    mount = plain.mount()
    (mount / "small").write_text("inline")
    write_and_sync(mount / "large", os.urandom(20_000_000))
    plain.remount()
    size = plain.image.stat().st_size
    first = plain.image.read_bytes().find((mount / "large").read_bytes()[:4096])
    drop_kernel_caches()
    os.truncate(plain.image, first + (1 << 20))
    with fails_with(errno.EIO):
        (mount / "large").read_bytes()
    with (mount / "large").open("rb") as file:
        assert len(file.read(4096)) == 4096
    assert (mount / "small").read_text() == "inline"
    os.truncate(plain.image, size)
    assert (mount / "large").stat().st_size == 20_000_000
    plain.end()
