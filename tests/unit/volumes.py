"""Filesystems in memory: small, with a clock that ticks once each time it is read."""

from __future__ import annotations

import functools
import itertools
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

import pytest

from deferfs.check import check_image
from deferfs.device import Device, MemoryDevice
from deferfs.errors import FsError
from deferfs.limits import JOURNAL_BLOCKS_MIN, KIB, MIB
from deferfs.ondisk.format import Block, Format
from deferfs.ondisk.inode import Inode
from deferfs.ondisk.superblock import Superblock
from deferfs.store.io import run_job
from deferfs.store.mkfs import make_filesystem, plan_geometry
from deferfs.store.needs import NeedBlocks
from deferfs.store.plan import Plan
from deferfs.store.recovery import read_superblock
from deferfs.store.store import Store
from deferfs.volume import attributes, namespace
from deferfs.volume.driver import Driver
from deferfs.volume.new_inode import NewInode
from deferfs.volume.volume import Volume

T = TypeVar("T")
B = TypeVar("B", bound=Block)

UUID = b"0123456789abcdef"
HASH_KEY = b"k" * 16
BLOCK_SIZES = (1 * KIB, 4 * KIB, 64 * KIB)
FILE = stat.S_IFREG | 0o644
DIRECTORY = stat.S_IFDIR | 0o755
ROOT = 1


def formats() -> list[Format]:
    return [Format(size, UUID, HASH_KEY) for size in BLOCK_SIZES]


def image_bytes(block_size: int) -> int:
    """A small image for this block size: a few thousand blocks, or what mkfs asks for."""
    return max(6 * MIB, (JOURNAL_BLOCKS_MIN + 128) * block_size)


@functools.lru_cache(maxsize=16)
def _image(size: int, block_size: int, journal_blocks: int | None, keys31: bool) -> bytes:
    device = MemoryDevice(size)
    geometry = plan_geometry(
        size,
        block_size=block_size,
        uuid=UUID,
        hash_key=HASH_KEY,
        now_ns=1,
        journal_bytes=journal_blocks and journal_blocks * block_size,
    )
    if not keys31:
        geometry = replace(geometry, superblock=replace(geometry.superblock, incompatible=0))
    run_job(device, make_filesystem(geometry))
    # free space holds old data, so code that takes it for zeros fails
    free = geometry.first_free * block_size
    spares = {
        address * block_size: device.read(address * block_size, block_size) for address in geometry.superblock.spares
    }
    device.write(free, b"\xdb" * (size - free))
    for offset, spare in spares.items():
        device.write(offset, spare)
    return device.snapshot()


def fresh_device(
    size: int = 0, *, block_size: int = KIB, journal_blocks: int | None = None, keys31: bool = True
) -> MemoryDevice:
    """A freshly made filesystem; without `keys31`, as versions without 31-bit keys made it."""
    return MemoryDevice.from_bytes(_image(size or image_bytes(block_size), block_size, journal_blocks, keys31))


def open_driver(
    device: Device, *, evict: str = "deferred", memory_bytes: int = 64 * MIB, read_only: bool = False
) -> Driver:
    return Driver.open(
        device,
        clock=itertools.count(1000).__next__,
        entropy=itertools.count(7).__next__,
        memory_bytes=memory_bytes,
        evict=evict,
        read_only=read_only,
    )


def fresh_driver(
    size: int = 0,
    *,
    block_size: int = KIB,
    journal_blocks: int | None = None,
    evict: str = "deferred",
    memory_bytes: int = 64 * MIB,
) -> Driver:
    device = fresh_device(size, block_size=block_size, journal_blocks=journal_blocks)
    return open_driver(device, evict=evict, memory_bytes=memory_bytes)


def fresh_store(size: int = 0, *, block_size: int = KIB, journal_blocks: int | None = None) -> Store:
    return fresh_driver(size, block_size=block_size, journal_blocks=journal_blocks).volume.store


def read_back(image: bytes) -> Superblock:
    """The superblock that counts."""
    device = MemoryDevice.from_bytes(image)
    return run_job(device, read_superblock(device.size))


def settle(driver: Driver) -> None:
    """Nothing queued, nothing uncommitted, everything at home."""
    driver.collect()
    driver.commit()
    driver.checkpoint()


def snapshot_of(driver: Driver) -> bytes:
    """The image as a crash now would leave it, were every write so far durable."""
    return driver.device.read(0, driver.device.size)


def reopened(driver: Driver, *, evict: str = "deferred") -> Driver:
    """Another mount of a copy of the image as it is: after a crash."""
    return open_driver(MemoryDevice.from_bytes(snapshot_of(driver)), evict=evict)


def remounted(driver: Driver) -> Driver:
    """After a clean unmount."""
    driver.close()
    return reopened(driver)


def assert_sound(driver: Driver) -> None:
    """After a commit, the independent check of every structure finds nothing."""
    driver.commit()
    report = check_image(MemoryDevice.from_bytes(snapshot_of(driver)))
    assert not report.problems, "\n".join(map(str, report.problems))
    assert report.complete


def free_blocks(driver: Driver) -> int:
    return attributes.statfs(driver.volume).free


def make(driver: Driver, name: bytes, mode: int = FILE, parent: int = ROOT) -> int:
    """Create; the inode number. The inode has no active reference."""
    return driver.run(namespace.create, driver.volume, parent, name, NewInode(mode)).ino


def make_file(driver: Driver, name: bytes, data: bytes, parent: int = ROOT) -> int:
    ino = make(driver, name, parent=parent)
    driver.write(ino, 0, data)
    return ino


def look_up(driver: Driver, name: bytes, parent: int = ROOT) -> Inode:
    return driver.run(namespace.lookup, driver.volume, parent, name)


def names(driver: Driver, ino: int = ROOT) -> list[bytes]:
    """The entries but `.` and `..`, in readdir order."""

    def op(plan: Plan) -> list[bytes]:
        return [entry.name for entry in namespace.readdir(plan, driver.volume, ino, 0)][2:]

    return driver.run(op)


def record_of(volume: Volume, ino: int) -> Inode:
    """The record as it is now; its block must be cached."""
    return volume.store.inodes.get(Plan(volume.store), ino)


def record(driver: Driver, ino: int) -> Inode:
    return driver.run(lambda plan: driver.volume.store.inodes.get(plan, ino))


def unlink(driver: Driver, name: bytes, parent: int = ROOT) -> None:
    driver.run(namespace.unlink, driver.volume, parent, name)


@contextmanager
def fails_with(errno: int) -> Iterator[None]:
    """The block must raise FsError with this errno."""
    with pytest.raises(FsError) as caught:
        yield
    assert caught.value.errno == errno, str(caught.value)


def planned(driver: Driver, op: Callable[[Plan], T]) -> tuple[Plan, T]:
    """Run `op` in a plan that is neither applied nor dropped; blocks it lacks are fetched."""
    store = driver.volume.store
    while True:
        plan = Plan(store, reserve=True)
        try:
            return plan, op(plan)
        except NeedBlocks as need:
            plan.drop()
            run_job(driver.device, store.fetch(need))


class LookingPlan(Plan):
    """A plan for looking only, which reads by itself what is not cached."""

    __slots__ = ("driver",)

    def __init__(self, driver: Driver) -> None:
        super().__init__(driver.volume.store, reserve=True)
        self.driver = driver

    def get(self, address: int, kind: type[B]) -> B:
        try:
            return super().get(address, kind)
        except NeedBlocks as need:
            run_job(self.driver.device, self.store.fetch(need))
            return super().get(address, kind)
