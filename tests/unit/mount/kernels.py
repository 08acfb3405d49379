"""An adapter without a kernel: its requests are called as pyfuse3 calls them."""

from __future__ import annotations

import os
from typing import Any, cast

import pyfuse3
import pytest

from deferfs.mount.fuse.adapter import Adapter
from deferfs.mount.host.options import MountOptions
from deferfs.mount.host.output_file import create_file
from deferfs.mount.runtime.runtime import Runtime
from tests.unit.mount.fuse.requests import Fields, context
from tests.unit.volumes import fresh_driver

ROOT = pyfuse3.ROOT_INODE


def make_runtime(evict: str) -> Runtime:
    driver = fresh_driver(evict=evict)
    return Runtime(driver.device, driver.volume, strict=evict == "deferred", create_file=create_file)


class Kernel:
    """Sends requests as pyfuse3 does."""

    def __init__(self, runtime: Runtime, options: MountOptions) -> None:
        self.runtime = runtime
        self.adapter = Adapter(runtime, options)

    def lookups(self, ino: int) -> int:
        inode = self.runtime.volume.inodes.table.get(ino)
        return inode.lookups if inode is not None else 0

    async def create(self, name: bytes, flags: int = os.O_RDWR, uid: int = 0) -> tuple[int, int]:
        info, entry = await self.adapter.create(ROOT, name, 0o644, flags, context(uid))
        return entry.st_ino, info.fh

    async def setattr(self, ino: int, uid: int = 0, **values: int) -> pyfuse3.EntryAttributes:
        attr = pyfuse3.EntryAttributes()
        for name, value in values.items():
            setattr(attr, f"st_{name}", value)
        changed = {f"update_{name.removesuffix('_ns')}": True for name in values}
        fields = cast("pyfuse3.SetattrFields", Fields(**changed))
        return await self.adapter.setattr(ino, attr, fields, None, context(uid))


def fails(number: int) -> Any:
    return pytest.raises(pyfuse3.FUSEError, check=lambda error: error.errno == number)
