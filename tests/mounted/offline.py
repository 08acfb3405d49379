"""What is in an image before it is mounted, made by the core: for tests of what is done with much, not of making it."""

from __future__ import annotations

import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from deferfs.device import FileDevice
from deferfs.measure.work.scattered import BLOCK, STRIDE_BYTES
from deferfs.mount.daemon.session import random_numbers
from deferfs.ondisk.inode import ROOT_INO
from deferfs.volume import Driver, NewInode, namespace

DIRECTORY: Final = NewInode(stat.S_IFDIR | 0o755)
FILE: Final = NewInode(stat.S_IFREG | 0o644)


@contextmanager
def opened(image: Path) -> Iterator[Driver]:
    """The filesystem in `image`, which nothing else uses meanwhile, and which is clean afterwards."""
    device = FileDevice.open(str(image), writable=True)
    driver = Driver.open(device, clock=time.time_ns, entropy=random_numbers())
    yield driver
    driver.close()


def make_directory(driver: Driver, name: str) -> int:
    """A directory in the root directory; its inode number."""
    return driver.run(namespace.create, driver.volume, ROOT_INO, name.encode(), DIRECTORY).ino


def make_file(driver: Driver, name: str, content: bytes = b"", parent: int = ROOT_INO) -> None:
    ino = driver.run(namespace.create, driver.volume, parent, name.encode(), FILE).ino
    if content:
        driver.write(ino, 0, content)
    driver.write_back()


def make_link(driver: Driver, name: str, target: str, parent: int = ROOT_INO) -> None:
    """A symbolic link."""
    driver.run(namespace.symlink, driver.volume, parent, name.encode(), target.encode())
    driver.write_back()


def make_files(driver: Driver, names: Iterable[str], parent: int = ROOT_INO) -> None:
    """Empty files."""
    for name in names:
        make_file(driver, name, parent=parent)


def make_scattered(driver: Driver, name: str, extents: int) -> None:
    """A file in the root directory, as `deferfs.measure.work.scattered.make_file`."""
    ino = driver.run(namespace.create, driver.volume, ROOT_INO, name.encode(), FILE).ino
    for extent in range(extents):
        driver.write(ino, extent * STRIDE_BYTES, BLOCK)
        driver.write_back()
