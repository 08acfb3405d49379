"""What the kernel is asked to drop when the in-core inodes that it refers to take too much memory."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import pytest

from deferfs.limits import INODE_COST_BYTES
from deferfs.mount.fuse.kernel_cache import KernelCache
from deferfs.store.plan import Plan
from deferfs.volume.driver import Driver
from tests.unit.volumes import ROOT, fresh_driver, make, record_of

T = TypeVar("T")


class Kernel:
    """Notes what it is asked to drop. `error`: it refuses to drop inodes by number."""

    def __init__(self, error: int = 0) -> None:
        self.error = error
        self.asked = 0
        self.descriptors: list[int] = []
        self.inodes: list[int] = []
        self.names: list[tuple[int, bytes]] = []

    def prune(self, fd: int, inodes: Sequence[int]) -> None:
        self.asked += 1
        assert os.path.samestat(os.fstat(fd), os.stat(os.devnull))
        self.descriptors.append(fd)
        if self.error:
            raise OSError(self.error, "refused")
        self.inodes += inodes

    def invalidate(self, parent: int, name: bytes) -> None:
        self.names.append((parent, name))


@pytest.fixture
def connection() -> Iterator[int]:
    """A descriptor in place of that of the FUSE connection."""
    fd = os.open(os.devnull, os.O_WRONLY)
    yield fd
    with suppress(OSError):
        os.close(fd)


def cache_of(driver: Driver, kernel: Kernel, connection: int) -> KernelCache:
    async def run_reserved(op: Callable[[Plan], T], /) -> T:
        return driver.run(op)

    reserved: Callable[[Callable[[Plan], Any]], Coroutine[Any, Any, Any]] = run_reserved
    return KernelCache(driver.volume, reserved, connection, kernel.invalidate, kernel.prune)


def known(driver: Driver, count: int) -> list[int]:
    """Files that the kernel has looked up, in this order."""
    found = []
    for number in range(count):
        ino = make(driver, b"%d" % number)
        driver.volume.inodes.lookup(ino, record_of(driver.volume, ino).generation)
        found.append(ino)
    return found


async def test_the_inodes_are_dropped_by_number_that_are_in_core_for_longest(connection: int) -> None:
    driver, kernel = fresh_driver(), Kernel()
    inos, cache = known(driver, 5), cache_of(driver, kernel, connection)
    assert await cache.trim(2 * INODE_COST_BYTES - 1) == 2 * INODE_COST_BYTES
    assert kernel.inodes == inos[:2]
    assert await cache.trim(1) == INODE_COST_BYTES
    assert kernel.inodes == inos[:3]
    assert not kernel.names


async def test_a_kernel_that_does_not_know_numbers_is_asked_by_name_from_then_on(connection: int) -> None:
    driver, kernel = fresh_driver(), Kernel(errno.EINVAL)
    known(driver, 3)
    driver.volume.directories[ROOT] = None
    cache = cache_of(driver, kernel, connection)
    assert await cache.trim(2 * INODE_COST_BYTES) == 2 * INODE_COST_BYTES
    assert len(kernel.names) == 2
    assert await cache.trim(2 * INODE_COST_BYTES) == INODE_COST_BYTES
    assert sorted(kernel.names) == [(ROOT, b"0"), (ROOT, b"1"), (ROOT, b"2")]
    assert kernel.asked == 1


@pytest.mark.parametrize("error", [errno.ENODEV, errno.ENOMEM])
async def test_any_other_error_leaves_it_at_that(error: int, connection: int) -> None:
    driver, kernel = fresh_driver(), Kernel(error)
    known(driver, 3)
    cache = cache_of(driver, kernel, connection)
    assert await cache.trim(INODE_COST_BYTES) == 0
    kernel.error = 0
    assert await cache.trim(INODE_COST_BYTES) == INODE_COST_BYTES
    assert not kernel.names


async def test_nothing_is_asked_when_no_inode_can_be_dropped(connection: int) -> None:
    driver, kernel = fresh_driver(), Kernel()
    assert await cache_of(driver, kernel, connection).trim(1 << 20) == 0
    assert not kernel.asked


async def test_a_descriptor_of_its_own_is_written_to_and_none_once_the_mount_is_gone(connection: int) -> None:
    """The number of the connection's may belong to another file by the time that a thread writes: to the image."""
    driver, kernel = fresh_driver(), Kernel()
    known(driver, 3)
    cache = cache_of(driver, kernel, connection)
    await cache.trim(INODE_COST_BYTES)
    assert kernel.descriptors != [connection]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(kernel.descriptors[0])
    cache.released()
    assert await cache.trim(INODE_COST_BYTES) == 0
    assert kernel.asked == 1
