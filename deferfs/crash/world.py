"""A small filesystem under test with its model, and the selection of its objects by numbers."""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from deferfs.crash.explorer import Explorer, Limits, Tally
from deferfs.crash.model import Node
from deferfs.crash.oracle import Verdict
from deferfs.crash.twin import Twin
from deferfs.device import Chooser, MemoryDevice
from deferfs.limits import INODE_COST_BYTES, JOURNAL_BLOCKS_MIN
from deferfs.ondisk.format import Format
from deferfs.store.io import run_job
from deferfs.store.mkfs import Geometry, make_filesystem, plan_geometry, with_spares
from deferfs.volume import attributes
from deferfs.volume.driver import Driver

SMALL_JOURNAL_BLOCKS = 96
"""Enough for the largest single operation of these tests."""
SHORT_JOURNAL_BLOCKS = 144
"""The minimum with so many files that the inode table grows: by 32 blocks of 1 KiB in one operation, which a third of
the log must hold.
"""
NAMES = 14
"""Names of one directory: few, so that they collide, but more than fit inline."""

DROPPED_AT_ONCE = 8
"""Inodes that the kernel forgets when it is asked to drop entries."""

CLOCK_START = 10**18
"""In ns: a present-day time. Those of `set_times` are before and after it."""
_CLOCK_STEP_NS = 370_000_000


@dataclass(frozen=True)
class Shape:
    """A filesystem to test on. `free_blocks`: about the number of free blocks when it is new."""

    block_size: int = 1024
    free_blocks: int = 1200
    journal_blocks: int = JOURNAL_BLOCKS_MIN
    evict: str = "deferred"
    memory_bytes: int = 64 << 20
    discard: bool = False
    atime: str = "relative"

    @property
    def size(self) -> int:
        """Size of the image in bytes."""
        fmt = Format(self.block_size, bytes(16), bytes(16))
        fixed = fmt.reserved_blocks + 1 + self.journal_blocks + 1 + fmt.chunk_blocks
        return (fixed + self.free_blocks) * self.block_size


@functools.cache
def fresh_image(shape: Shape) -> bytes:
    """An empty filesystem. Its journal may be smaller than mkfs allows, so that it wraps after a few commits."""
    missing = JOURNAL_BLOCKS_MIN - min(JOURNAL_BLOCKS_MIN, shape.journal_blocks)
    geometry = plan_geometry(
        shape.size + missing * shape.block_size,
        block_size=shape.block_size,
        uuid=b"0123456789abcdef",
        hash_key=b"fedcba9876543210",
        now_ns=1,
        journal_bytes=(shape.journal_blocks + missing) * shape.block_size,
    )
    smaller = replace(
        geometry.superblock,
        blocks=geometry.superblock.blocks - missing,
        journal_blocks=shape.journal_blocks,
        inode_root=geometry.superblock.inode_root - missing,
    )
    first_free = geometry.first_free - missing
    geometry = Geometry(with_spares(smaller, first_free), geometry.inode_bitmap - missing, first_free)
    device = MemoryDevice(shape.size)
    run_job(device, make_filesystem(geometry))
    return device.snapshot()


@functools.cache
def fresh_free(shape: Shape) -> int:
    """Free blocks of an empty filesystem, as statfs counts them."""
    device = MemoryDevice.from_bytes(fresh_image(shape))
    driver = Driver.open(device, clock=itertools.count(1).__next__, entropy=lambda: 7)
    return attributes.statfs(driver.volume).free


class Clock:
    """A clock that can be set, and never returns the same time twice."""

    def __init__(self) -> None:
        self.calls = 0
        self.ahead = 0
        """Number of steps by which it has been set forward."""

    def __call__(self) -> int:
        """Nanoseconds; a step is long enough to reveal rounding to seconds."""
        self.calls += 1
        return CLOCK_START + (self.calls + self.ahead) * _CLOCK_STEP_NS + self.calls


@dataclass
class World:
    """A twin and the state that actions need."""

    shape: Shape
    seed: int = 0
    image: bytes | None = None
    twin: Twin = field(init=False)
    generation: int = 0
    """How often the run continued from a crash image."""
    first: int = 0
    """Records before the first crash to be explored."""
    _judged_before: int = 0

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        self.clock = Clock()
        self.entropy = itertools.count(1).__next__
        self._start(fresh_image(self.shape) if self.image is None else self.image)

    def _start(self, image: bytes) -> None:
        shape = self.shape
        self.first = 0
        self.twin = Twin(
            image,
            clock=self.clock,
            entropy=self.entropy,
            dice=self.dice,
            evict=shape.evict,
            memory_bytes=shape.memory_bytes,
            discard=shape.discard,
            atime=shape.atime,
        )
        self.twin.driver.engine.workers.requests = lambda: self.twin.history.last
        self.twin.driver.on_drop_entries = functools.partial(drop_entries, self.twin)

    @property
    def judged(self) -> int:
        return self._judged_before + self.twin.oracle.judged

    # --- selection ---
    def nodes(self, wanted: Callable[[Node], bool]) -> list[int]:
        return [ino for ino, node in sorted(self.twin.model.nodes.items()) if wanted(node)]

    def directory(self, number: int) -> int:
        """A directory; one in 16 is a deleted one, if one is in use."""
        if number % 16 == 15:
            gone = [ino for ino in self.nodes(lambda n: n.is_directory and not n.nlink) if self._in_use(ino)]
            if gone:
                return gone[number % len(gone)]
        known = self.nodes(lambda node: node.is_directory and node.nlink > 0)
        return known[number % len(known)]

    def _in_use(self, ino: int) -> bool:
        held = any(handle.inode.ino == ino for handle in self.twin.handles)
        return held or ino in self.twin.lookups

    def usable(self, wanted: Callable[[Node], bool]) -> list[int]:
        """Inodes that a process can reach: by name, or because it has them open."""
        found = self.nodes(wanted)
        return [ino for ino in found if self.twin.model.nodes[ino].nlink or self._in_use(ino)]

    def file(self, number: int) -> int | None:
        known = self.usable(lambda node: node.is_file)
        return known[number % len(known)] if known else None

    def any(self, number: int) -> int:
        known = self.usable(lambda node: True)
        return known[number % len(known)]

    def name(self, directory: int, number: int) -> bytes:
        """Three times in four an existing name."""
        known = sorted(self.twin.model.nodes[directory].entries)
        if known and number % 4:
            return known[number // 4 % len(known)]
        return new_name(number // 4)

    # --- crashes ---
    def explorer(self, *, seed: int, limits: Limits | None = None) -> Explorer:
        """An explorer of the run so far."""
        twin = self.twin
        return Explorer(
            twin.start,
            tuple(twin.device.records),
            twin.history,
            seed=seed,
            limits=limits,
            fresh_free=fresh_free(self.shape),
            phases=twin.device.phases,
        )

    def explore(self, first: int = 0, *, limits: Limits | None = None) -> Tally:
        """Explore all crashes so far after record `first`. Failure when one breaks a promise."""
        explorer = self.explorer(seed=self.dice.getrandbits(32), limits=limits)
        try:
            return explorer.explore(first)
        finally:
            self._judged_before += explorer.tally.states

    def cut(self, position: int, choose: Chooser) -> Verdict:
        return self.twin.oracle.judge(position, choose)

    def go_on_from(self, image: bytes) -> None:
        """Continue from `image`, the result of a power failure."""
        self._judged_before += self.twin.oracle.judged
        self.twin.driver.drop_standing()
        self.generation += 1
        self._start(image)


def drop_entries(twin: Twin) -> int:
    """The kernel is asked to drop entries, and forgets some of the inodes that it knows; bytes that this frees."""
    dropped = sorted(twin.lookups)[:DROPPED_AT_ONCE]
    for ino in dropped:
        twin.forget(ino)
    return len(dropped) * INODE_COST_BYTES


def new_name(number: int) -> bytes:
    """One of NAMES names; some are long."""
    index = number % NAMES
    return b"n%d" % index + b"-" * (0, 0, 0, 30, 230)[index % 5]


def pattern(seed: int, length: int) -> bytes:
    """Non-zero bytes that differ for each seed."""
    return random.Random(seed).randbytes(length).replace(b"\0", b"\1")
