"""A volume in use: a seeded mix of operations."""

from __future__ import annotations

import errno
import stat
from collections.abc import Callable
from random import Random

from deferfs.check import Report, check_image
from deferfs.device import MemoryDevice
from deferfs.errors import FsError
from deferfs.ondisk.inode import ROOT_INO
from deferfs.store.directories import DirectoryEntry
from deferfs.store.io import run_job
from deferfs.store.mkfs import make_filesystem, plan_geometry
from deferfs.volume import files, namespace, xattrs
from deferfs.volume.driver import Driver
from deferfs.volume.new_inode import NewInode

SIZES = {1024: 12 << 20, 4096: 24 << 20, 65536: 64 << 20}

EXPECTED = {
    errno.EEXIST, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY, errno.EINVAL, errno.EPERM, errno.ENOSPC,
    errno.EBUSY, errno.ENAMETOOLONG, errno.ESTALE,
}  # fmt: skip


class Workload:
    """Random operations on a small volume, which may be cut off and opened again at any time."""

    def __init__(self, seed: int, block_size: int, evict: str) -> None:
        self.random = Random(seed)
        self.evict = evict
        self.now = 0
        self.device = MemoryDevice(SIZES[block_size])
        geometry = plan_geometry(
            self.device.size,
            block_size=block_size,
            uuid=b"a volume's uuid!",
            hash_key=self.random.randbytes(16),
            now_ns=1,
            journal_bytes=256 * block_size,
        )
        run_job(self.device, make_filesystem(geometry))
        self.directories = [ROOT_INO]
        self.open()

    def _clock(self) -> int:
        self.now += 1
        return self.now

    def _entropy(self) -> int:
        return self.random.getrandbits(32)

    def open(self) -> None:
        self.driver = Driver.open(self.device, clock=self._clock, entropy=self._entropy, evict=self.evict)
        self.volume = self.driver.volume

    def cut_off(self) -> Report:
        """Leave the volume as a crash would; what the check says before it is opened again."""
        report = check_image(self.device)
        self.open()
        return report

    def close(self) -> Report:
        self.driver.close()
        return check_image(self.device)

    def snapshot(self) -> Report:
        """What the check says of the image as it is on the device now."""
        return check_image(MemoryDevice.from_bytes(self.device.snapshot()))

    # --- operations ---
    def step(self) -> None:
        """One operation; most of the errors it can end in are ordinary."""
        operations: list[Callable[[], object]] = [
            *[self._create] * 3, self._mkdir, self._symlink, self._link, *[self._unlink] * 2, self._rmdir,
            *[self._rename] * 2, *[self._write] * 3, self._truncate, self._xattr, self._many, self._forget,
            self.driver.commit, self.driver.checkpoint, self.driver.collect,
        ]  # fmt: skip
        try:
            self.random.choice(operations)()
        except FsError as error:
            if error.errno not in EXPECTED:
                raise

    def _directory(self) -> int:
        return self.random.choice(self.directories)

    def _name(self) -> bytes:
        return b"name-%d" % self.random.randrange(60) * self.random.choice([1, 1, 5, 30])

    def entries(self, parent: int) -> list[DirectoryEntry]:
        """All entries but `.` and `..`."""
        return self.driver.run(lambda plan: list(namespace.readdir(plan, self.volume, parent, 2)))

    def delete_below(self, parent: int) -> None:
        """Remove everything in a directory."""
        for entry in self.entries(parent):
            if stat.S_ISDIR(entry.file_type << 12):
                self.delete_below(entry.ino)
                self.driver.run(namespace.rmdir, self.volume, parent, entry.name)
            else:
                self.driver.run(namespace.unlink, self.volume, parent, entry.name)

    def _entry(self) -> tuple[int, DirectoryEntry]:
        """A directory and one of its entries; ENOENT when it has none."""
        parent = self._directory()
        found = self.entries(parent)
        if not found:
            raise FsError(errno.ENOENT)
        return parent, self.random.choice(found)

    def _make(self, mode: int, name: bytes) -> int:
        return self.driver.run(namespace.create, self.volume, self._directory(), name, NewInode(mode)).ino

    def _create(self) -> None:
        self._make(stat.S_IFREG | 0o644, self._name())

    def _mkdir(self) -> None:
        self.directories.append(self._make(stat.S_IFDIR | 0o755, self._name()))

    def _many(self) -> None:
        for index in range(self.random.choice([5, 200])):
            self._make(stat.S_IFREG | 0o644, b"%d of many %d" % (index, self.now))

    def _symlink(self) -> None:
        target = b"t" * self.random.choice([1, 380, 3000, 4095])
        self.driver.run(namespace.symlink, self.volume, self._directory(), self._name(), target)

    def _link(self) -> None:
        ino = self._entry()[1].ino
        self.driver.run(namespace.link, self.volume, ino, self._directory(), self._name())

    def _unlink(self) -> None:
        parent, entry = self._entry()
        self.driver.run(namespace.unlink, self.volume, parent, entry.name)

    def _rmdir(self) -> None:
        parent, entry = self._entry()
        self.driver.run(namespace.rmdir, self.volume, parent, entry.name)

    def _rename(self) -> None:
        parent, entry = self._entry()
        into, other = self._entry()
        name, flags = self.random.choice([(self._name(), 0), (other.name, 0), (other.name, namespace.RENAME_EXCHANGE)])
        self.driver.run(namespace.rename, self.volume, parent, entry.name, into, name, flags)

    def _write(self) -> None:
        ino = self._entry()[1].ino
        for _ in range(self.random.choice([1, 1, 20])):
            offset = self.random.choice([0, self.random.randrange(3000), self.random.randrange(300_000), 1 << 30])
            self.driver.write(ino, offset, bytes(self.random.choice([1, 300, 5000, 100_000])))

    def _truncate(self) -> None:
        length = self.random.choice([0, 10, 1000, self.random.randrange(100_000), 1 << 31])
        self.driver.truncate(self._entry()[1].ino, length)

    def _xattr(self) -> None:
        name, value = b"user.%d" % self.random.randrange(4), bytes(self.random.choice([0, 10, 300, 3000]))
        self.driver.run(xattrs.setxattr, self.volume, self._entry()[1].ino, name, value)

    def _forget(self) -> None:
        """An open file is deleted, and let go of."""
        ino = self._make(stat.S_IFREG | 0o644, b"deleted while open")
        record = self.driver.run(lambda plan: plan.store.inodes.get(plan, ino))
        self.volume.lookup_count(record)
        self.driver.write(ino, 0, bytes(100_000))
        self.driver.run(files.trim, self.volume, ino)
        parent = next(d for d in self.directories if self._has(d, b"deleted while open"))
        self.driver.run(namespace.unlink, self.volume, parent, b"deleted while open")
        if self.random.random() < 0.5:
            self.driver.commit()
        self.driver.forget(ino, 1)

    def _has(self, parent: int, name: bytes) -> bool:
        try:
            self.driver.run(namespace.lookup, self.volume, parent, name)
        except FsError:
            return False
        return True
