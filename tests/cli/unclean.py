"""Images that were not closed."""

from __future__ import annotations

import time
from pathlib import Path

from deferfs.device import FileDevice
from deferfs.volume import namespace
from deferfs.volume.driver import Driver
from deferfs.volume.new_inode import NewInode


def leave_unclean(image: Path) -> None:
    """As after a crash: a committed file and a deleted one, only in the log and the orphan table."""
    driver = Driver.open(FileDevice.open(str(image), writable=True), clock=time.time_ns, entropy=lambda: 1)
    volume = driver.volume
    for name in (b"kept", b"deleted"):
        driver.run(namespace.create, volume, 1, name, NewInode(0o100644))
    driver.run(namespace.unlink, volume, 1, b"deleted")
    driver.commit()
    driver.device.close()
