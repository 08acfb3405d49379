"""A filesystem without a mount, and all that a power failure may leave of it: an example of `deferfs.volume`,
`deferfs.store`, `deferfs.device` and `deferfs.crash`.

    python docs/example_volume.py

Makes a filesystem in memory, replaces a file the way editors do (write a new one, rename it over the old one), then
looks at every state that a crash on the way may leave: the old content or the new, nothing else.
"""

from __future__ import annotations

import random
import secrets
import stat
import time
from collections.abc import Callable
from typing import Final

from deferfs.crash import CrashStates, Subset, subsets
from deferfs.device import Device, MemoryDevice, RecordingDevice
from deferfs.store import make_filesystem, plan_geometry, run_job
from deferfs.volume import Driver, NewInode, namespace

SIZE_BYTES: Final = 4 << 20
ROOT: Final = 1
OLD, NEW = b"old " * 1000, b"new " * 1500


def new_filesystem() -> bytes:
    """An empty filesystem, as mkfs makes it."""
    device = MemoryDevice(SIZE_BYTES)
    geometry = plan_geometry(
        SIZE_BYTES,
        block_size=1024,
        uuid=secrets.token_bytes(16),
        hash_key=secrets.token_bytes(16),
        now_ns=time.time_ns(),
        journal_bytes=256 << 10,
    )
    run_job(device, make_filesystem(geometry))
    return device.snapshot()


def open_volume(device: Device) -> Driver:
    """Open and recover, as a mount does. The core has no clock and no random numbers: both are passed in."""
    return Driver.open(device, clock=time.time_ns, entropy=lambda: secrets.randbits(32))


def make_file(driver: Driver, name: bytes, content: bytes) -> int:
    """A durable file in the root directory; its inode number."""
    record = driver.run(namespace.create, driver.volume, ROOT, name, NewInode(stat.S_IFREG | 0o644))
    driver.write(record.ino, 0, content)
    driver.fsync(record.ino)
    return record.ino


def read_file(driver: Driver, name: bytes) -> bytes:
    """All of a file in the root directory."""
    record = driver.run(namespace.lookup, driver.volume, ROOT, name)
    return driver.read(record.ino, 0, record.size)


def judge_crashes(start: bytes, disk: RecordingDevice, first: int, check: Callable[[Driver], None]) -> int:
    """Check what is recovered after a crash at each record from `first` on, whatever has reached the disk of the writes
    that were not flushed. Returns how many states there were."""
    states = CrashStates(start, disk.records)
    dice = random.Random(0)
    count = 0
    for position in range(first, len(disk.records) + 1):
        for choice in subsets(len(states.unflushed(position)), dice):
            check(open_volume(MemoryDevice.from_bytes(states.image(position, choice))))
            count += 1
    return count


def main() -> None:
    """Replace a file, and look at all crashes."""
    start = new_filesystem()
    disk = RecordingDevice(MemoryDevice.from_bytes(start))
    driver = open_volume(disk)
    make_file(driver, b"config", OLD)
    durable = len(disk.records)  # from here on, the old content must survive
    make_file(driver, b"config.new", NEW)
    driver.run(namespace.rename, driver.volume, ROOT, b"config.new", ROOT, b"config")
    driver.sync()
    assert read_file(driver, b"config") == NEW

    found: set[bytes] = set()
    count = judge_crashes(start, disk, durable, lambda recovered: found.add(read_file(recovered, b"config")))
    assert found == {OLD, NEW}, "a crash has left something else"
    print(f"{count} crashes after {durable} of {len(disk.records)} writes and flushes: the old content or the new")

    lost = open_volume(MemoryDevice.from_bytes(CrashStates(start, disk.records).image(durable, Subset(0))))
    print("right after the first fsync, with an empty cache:", *sorted(names(lost)))


def names(driver: Driver) -> list[str]:
    """What is in the root directory."""
    entries = driver.run(lambda plan: list(namespace.readdir(plan, driver.volume, ROOT, 0)))
    return [entry.name.decode() for entry in entries]


if __name__ == "__main__":
    main()
