"""The process of the scenario `allocation`: it walks files through an overlay, then touches fresh memory."""

from __future__ import annotations

import mmap
import os
import time
from collections import deque
from pathlib import Path
from typing import Final, Literal

import msgspec

from deferfs.measure.mounts.syncing import sync_filesystem
from deferfs.measure.work.processes import StopFlag
from deferfs.measure.work.scattered import BLOCK, make_scattered, scattered_paths
from deferfs.measure.work.shared_samples import SharedSamples

MIB: Final = 1 << 20


class Parameters(msgspec.Struct, frozen=True, kw_only=True):
    """`inodes` files, one in `scattered_every` with `extents` extents, the others with one. The limit is the memory of
    the process after its walk plus `headroom_bytes`. It touches `total_bytes` in chunks of `chunk_bytes` and keeps the
    last `held_bytes` of them, so that held - headroom has to be reclaimed. `seconds_max`: time limit of a pass; the
    current wait then counts with its length so far.

    The defaults: more than four extents do not fit into an inode of ext4, so that 2,000 of the 6,000 evicts have to
    read a block, which takes seconds at 1 ms each; a walk of 6,000 files takes less than a second. With far fewer files
    reclaim has unreferenced all of them before the first RCU grace period has freed memory, and the process is
    OOM-killed on every filesystem whose evict does not wait.
    """

    inodes: int = 6000
    extents: int = 8
    scattered_every: int = 3
    headroom_bytes: int = 1 * MIB
    held_bytes: int = 4 * MIB
    chunk_bytes: int = 256 << 10
    total_bytes: int = 16 * MIB
    variant: Literal["unlink", "linked"] = "unlink"
    seconds_max: float = 60.0


class Done(msgspec.Struct):
    """The answer; the measurements are in the shared samples."""


class Allocation:
    """The job. `root` is the filesystem, `merged` the overlay of it. `makes_files`: on tmpfs an inode is charged to the
    cgroup that creates it, so this process creates the files, empty ones.
    """

    name = "allocation"

    def __init__(
        self, wanted: Parameters, root: Path, merged: Path, samples: SharedSamples, *, makes_files: bool
    ) -> None:
        self._wanted = wanted
        self._makes_files = makes_files
        self._root = root
        self._merged = merged
        self._samples = samples

    def prepare(self) -> None:
        """Walk: the dentries and inodes are charged to this process's cgroup, and those of the overlay hold the lower
        ones."""
        if self._makes_files:
            make_scattered(self._root, self._wanted.inodes, 0)
        elif self._wanted.variant == "linked":
            owe_by_using(self._root, self._wanted.inodes)
        for path in scattered_paths(str(self._merged), self._wanted.inodes):
            os.stat(path)
        self._samples.touch()

    def measure(self, stop: StopFlag) -> Done:
        """Touch fresh memory, chunk by chunk."""
        size, samples = self._wanted.chunk_bytes, self._samples
        held: deque[mmap.mmap] = deque()
        for _ in range(self._wanted.total_bytes // size):
            start = time.monotonic_ns()
            samples.begin(start)
            chunk = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            for at in range(0, size, mmap.PAGESIZE):
                chunk[at] = 1
            samples.end(time.monotonic_ns() - start)
            held.append(chunk)
            if len(held) * size > self._wanted.held_bytes:
                held.popleft().close()
        return Done()


def owe_by_unlinking(root: Path, inodes: int) -> None:
    """Delete all names, so that cleanup is due with the last references."""
    for path in scattered_paths(str(root), inodes):
        os.unlink(path)
    sync_filesystem(root)


def owe_by_using(root: Path, inodes: int) -> None:
    """Give each file state that evict has to handle although the file stays: space preallocated past EOF, by two opens
    that append (XFS frees it at a single close), and an access time in memory.
    """
    paths = list(scattered_paths(str(root), inodes))
    for _ in range(2):
        for path in paths:
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
            os.write(descriptor, BLOCK)
            os.close(descriptor)
    sync_filesystem(root)
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.read(descriptor, 1)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)  # the kernel would reclaim data first
        os.close(descriptor)
