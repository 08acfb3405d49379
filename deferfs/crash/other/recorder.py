"""A recorded disk for the kernel: the disk server, a loop device on its file, and the log."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from deferfs.crash.other.disk_server import FLUSH, HEADER, NAME
from deferfs.crash.other.filesystems import Filesystem, run
from deferfs.device import FlushRecord, Record, WriteRecord
from deferfs.errors import EnvironmentProblem

BLOCK_BYTES: Final = 4096
"""The sector size of the loop device. ext4 and btrfs write their superblocks in place and rely on atomic sector writes,
so no smaller unit is torn; any subset of such blocks may be on the disk.
"""
_EXIT_SECONDS_MAX: Final = 30.0


class RecordedDisk:
    """A loop device of `size` bytes, zeros at first. `device` is its path."""

    def __init__(self, device: str, size: int, log: Path) -> None:
        self.device = device
        self.size = size
        self._log = log

    def mark(self) -> int:
        """A position in the log: everything answered so far is before it."""
        return self._log.stat().st_size

    def records(self, marks: list[int]) -> tuple[list[Record], list[int]]:
        """The log, one record for each block, and for each of the ascending `marks` the number of records before it."""
        data = self._log.read_bytes()
        records: list[Record] = []
        positions: list[int] = []
        at = 0
        while at < len(data):
            while len(positions) < len(marks) and marks[len(positions)] <= at:
                positions.append(len(records))
            kind, offset, length = HEADER.unpack_from(data, at)
            at += HEADER.size
            if kind == FLUSH:
                records.append(FlushRecord())
            for start in range(0, length, BLOCK_BYTES):
                part = data[at + start : at + min(length, start + BLOCK_BYTES)]
                records.append(WriteRecord(offset + start, part))
            at += length
        positions += [len(records)] * (len(marks) - len(positions))
        return records, positions


@contextmanager
def recorded_disk(size: int, directory: Path) -> Iterator[RecordedDisk]:
    """Serve a disk of `size` bytes in the `with` block; the server's files and mountpoint are in `directory`."""
    mountpoint, log = directory / "server", directory / "log"
    mountpoint.mkdir()
    module = "deferfs.crash.other.disk_server"
    # in its own process group: an interrupt from the terminal must not end the disk before the mount on it
    server = subprocess.Popen(
        [sys.executable, "-m", module, str(mountpoint), str(size), str(log)], stdout=subprocess.PIPE, process_group=0
    )
    try:
        assert server.stdout is not None
        if server.stdout.readline() != b"ready\n":
            raise EnvironmentProblem("the recorded disk cannot be served: FUSE does not work here")
        with loop_device(mountpoint / os.fsdecode(NAME)) as device:
            yield RecordedDisk(device, size, log)
    finally:
        # lazily: if the loop device is still in use, the server ends when it no longer is
        run(["umount", "--lazy", str(mountpoint)], code=None)
        try:
            server.wait(_EXIT_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        assert server.stdout is not None
        server.stdout.close()


@contextmanager
def loop_device(file: Path) -> Iterator[str]:
    """A loop device on `file`, attached in the `with` block."""
    device = run(["losetup", "--find", "--show", "--sector-size", str(BLOCK_BYTES), str(file)]).strip()
    try:
        yield device
    finally:
        run(["losetup", "--detach", device], code=None)


@contextmanager
def mounted(filesystem: Filesystem, device: str, mountpoint: Path) -> Iterator[Path]:
    """`device` mounted on the new directory `mountpoint` in the `with` block."""
    mountpoint.mkdir(exist_ok=True)
    try:
        run([*filesystem.mount, device, str(mountpoint)])
        yield mountpoint
    finally:
        if os.path.ismount(mountpoint):
            run([*filesystem.unmount, str(mountpoint)])
