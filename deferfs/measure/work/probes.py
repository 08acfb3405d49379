"""Foreground probes: one operation each, at a fixed pace, every latency recorded.

The pace is fixed (an open loop): operation k is due at `start + k * interval`. A probe that waited in operation k for
so long that k+1 and k+2 became due issues them at once and counts their time from the moment they were *due*, so that
one long stall is not hidden behind a single sample (coordinated omission). When only the scheduler woke the probe late,
the filesystem is not to blame, and the schedule is shifted by that much.

- `response`: from when the operation was due; what a client with a schedule experiences.
- `service`: the call alone.
"""

from __future__ import annotations

import mmap
import os
import random
import time
from array import array
from pathlib import Path
from typing import Final, Protocol

import msgspec

from deferfs.measure.stats.histogram import Histogram, fold
from deferfs.measure.work.processes import StopFlag
from deferfs.measure.work.tree import tree_path

WRITE_BYTES: Final = 4096
WRITE_FILE_BLOCKS: Final = 1024
"""The write probe cycles through a file of 4 MiB, which exists before the measurement."""
PREPARED_BLOCKS: Final = 64
"""A write to FUSE cannot wait for writeback in its own memory cgroup (GFP_NOFS): with all pages of the file under
writeback, the writer would be OOM-killed."""
MEMORY_BYTES: Final = 256 * 1024
MEMORY_HELD: Final = 16
"""Chunks of fresh memory that the memory probe keeps before it frees the oldest: 4 MiB."""


class ProbeResult(msgspec.Struct, frozen=True):
    """The results of one probe. `due`: operations that the pace asked for; `failed`: those that ended in an error."""

    interval_ns: int
    due: int
    done: int
    failed: int
    response: Histogram
    service: Histogram


class Operation(Protocol):
    """The operation of a probe: `ready` is not measured, `step` is."""

    name: str
    interval_ns: int

    def prepare(self) -> None:
        """Create the files that the operation needs; called once, before the start."""

    def ready(self) -> None:
        """What must precede each step without being measured."""

    def step(self) -> None:
        """The measured operation."""


class CreateOperation:
    """Create an empty file and close it."""

    name = "create"
    interval_ns = 20_000_000

    def __init__(self, root: Path) -> None:
        self._directory = f"{root}/probe-create"
        self._count = 0
        self._path = ""

    def prepare(self) -> None:
        """Make the probe's own directory."""
        os.makedirs(self._directory, exist_ok=True)

    def ready(self) -> None:
        """Choose the next name."""
        self._path = f"{self._directory}/{self._count}"
        self._count += 1

    def step(self) -> None:
        """creat(2) and close(2)."""
        os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))


class StatOperation:
    """stat(2) of a random file of the big tree, which the dentry cache mostly does not hold."""

    name = "stat"
    interval_ns = 5_000_000

    def __init__(self, root: Path, files: int, seed: int) -> None:
        self._root = str(root)
        self._files = files
        self._random = random.Random(seed)
        self._path = ""

    def prepare(self) -> None:
        """No-op: the tree exists."""

    def ready(self) -> None:
        """Choose the next file."""
        self._path = tree_path(self._root, self._random.randrange(self._files))

    def step(self) -> None:
        """stat(2) of the file."""
        os.stat(self._path)


class _BlockFile:
    """A file of whole blocks, written round and round: the part that the write and fsync probes
    share.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = -1
        self._block = bytes(range(256)) * (WRITE_BYTES // 256)
        self._next = 0

    def prepare(self) -> None:
        """Make the file with all its blocks, PREPARED_BLOCKS at a time."""
        self._descriptor = os.open(self._path, os.O_CREAT | os.O_RDWR, 0o644)
        for index in range(WRITE_FILE_BLOCKS):
            os.pwrite(self._descriptor, self._block, index * WRITE_BYTES)
            if not (index + 1) % PREPARED_BLOCKS:
                os.fsync(self._descriptor)
        os.fsync(self._descriptor)

    def _write(self) -> None:
        os.pwrite(self._descriptor, self._block, self._next * WRITE_BYTES)
        self._next = (self._next + 1) % WRITE_FILE_BLOCKS


class WriteOperation(_BlockFile):
    """Overwrite 4 KiB of an existing file, without O_SYNC."""

    name = "write"
    interval_ns = 10_000_000

    def __init__(self, root: Path) -> None:
        super().__init__(f"{root}/probe-write")

    def ready(self) -> None:
        """No-op."""

    def step(self) -> None:
        """pwrite(2) of one block."""
        self._write()


class FsyncOperation(_BlockFile):
    """fsync(2) of a file in which 4 KiB have just been overwritten; the write is not in the
    latency.
    """

    name = "fsync"
    interval_ns = 100_000_000

    def __init__(self, root: Path) -> None:
        super().__init__(f"{root}/probe-fsync")

    def ready(self) -> None:
        """Overwrite 4 KiB, to be synced."""
        self._write()

    def step(self) -> None:
        """fsync(2)."""
        os.fsync(self._descriptor)


class MemoryOperation:
    """Map 256 KiB of anonymous memory and touch each page: what an allocation costs inside the
    cgroup.
    """

    name = "memory"
    interval_ns = 10_000_000

    def __init__(self) -> None:
        self._held: list[mmap.mmap] = []

    def prepare(self) -> None:
        """No-op: every chunk is fresh."""

    def ready(self) -> None:
        """Free the oldest chunk, so that the probe's memory stays constant."""
        if len(self._held) >= MEMORY_HELD:
            self._held.pop(0).close()

    def step(self) -> None:
        """mmap(2) and a page fault for every page."""
        chunk = mmap.mmap(-1, MEMORY_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        for offset in range(0, MEMORY_BYTES, mmap.PAGESIZE):
            chunk[offset] = 1
        self._held.append(chunk)


class Probe:
    """An operation at its pace: the job of one worker process."""

    def __init__(self, operation: Operation) -> None:
        self.name = operation.name
        self._operation = operation

    def prepare(self) -> None:
        """Prepare the operation and run it once, so that nothing is done for the first time in the measurement."""
        self._operation.prepare()
        self._operation.ready()
        self._operation.step()

    def measure(self, stop: StopFlag) -> ProbeResult:
        """Run the operation at its pace until `stop`."""
        operation, interval = self._operation, self._operation.interval_ns
        clock, sleep = time.monotonic_ns, time.sleep
        response, service = array("Q"), array("Q")
        failed = 0
        due = clock()
        end = due - 1
        while not stop:
            early = due - clock()
            if early > 0:
                sleep(early / 1e9)
                if stop:
                    break
                due = clock()
            start = clock()
            try:
                operation.ready()
                start = clock()
                operation.step()
            except OSError:
                failed += 1
            end = clock()
            service.append(end - start)
            response.append(end - (start if early > 0 else due))
            due += interval
        return ProbeResult(
            interval_ns=interval,
            due=len(service) + max(0, (end - due) // interval + 1),  # some became due during the last one
            done=len(service) - failed,
            failed=failed,
            response=fold(response),
            service=fold(service),
        )


def standard_probes(root: Path, tree_files: int, seed: int) -> list[Probe]:
    """One probe of each kind for a run on `root`."""
    operations: list[Operation] = [
        CreateOperation(root),
        StatOperation(root, tree_files, seed),
        WriteOperation(root),
        FsyncOperation(root),
        MemoryOperation(),
    ]
    return [Probe(operation) for operation in operations]
