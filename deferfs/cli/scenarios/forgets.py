"""Does a flood of FORGETs stall the event loop?

One million clean inodes and a hundred thousand orphans, in messages as large as the kernel makes them, on a volume in
memory: what is timed is the daemon's own work, not a disk. Beside them runs a task that does nothing but take its turn;
the longest time between two of its turns is how long a request would have waited. Deferred, the handler of a message
never awaits; inline, it waits for every cleanup, and others get their turn meanwhile.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import trio

from deferfs.device import MemoryDevice
from deferfs.measure.scenario import Measure, Pass, Side, Surroundings
from deferfs.measure.simple import SimpleScenario, value_pass
from deferfs.mount.daemon.garbage import collect_briefly
from deferfs.mount.runtime.runtime import Runtime
from deferfs.store.io import run_job
from deferfs.store.memory import Memory
from deferfs.store.mkfs import make_filesystem, plan_geometry
from deferfs.store.recovery import read_superblock
from deferfs.store.store import open_store
from deferfs.volume import namespace
from deferfs.volume.new_inode import NewInode
from deferfs.volume.volume import Volume

MESSAGE: Final = 65_000
"""Forgets of one message: what fits into the kernel's buffer of 1 MiB."""
STALL_MS_MAX: Final = 50
"""The bound that is promised: a message is counted in slices of some milliseconds, and so is everything else."""
FIRST_INO: Final = 1 << 40
"""Numbers of clean inodes, which need no record: nothing looks at it when they are forgotten."""
IMAGE_BYTES: Final = 512 << 20
ROOT: Final = 1
FILE: Final = 0o100644


class Flood(msgspec.Struct, frozen=True):
    """Times in ms. `handler`: of each message; `stall`: longest time without a turn for others, until all was done."""

    kind: str
    evict: str
    inodes: int
    messages: int
    handler_ms_max: float
    stall_ms_max: float
    stall_ms_p99: float
    seconds: float


def make_runtime(evict: str) -> Runtime:
    """A fresh volume in memory, with the runtime of the daemon."""
    device = MemoryDevice(IMAGE_BYTES)
    geometry = plan_geometry(IMAGE_BYTES, block_size=4096, uuid=bytes(16), hash_key=bytes(16), now_ns=1)
    run_job(device, make_filesystem(geometry))
    superblock = run_job(device, read_superblock(device.size))
    store = run_job(
        device, open_store(superblock, Memory(4 << 30), clock=time.time_ns, entropy=itertools.count(1).__next__)
    )
    return Runtime(device, Volume(store, evict=evict))


async def take_turns(gaps: list[int]) -> None:
    """Append the time between two turns of this task, in ns, again and again."""
    then = time.perf_counter_ns()
    while True:
        await trio.lowlevel.checkpoint()
        now = time.perf_counter_ns()
        gaps.append(now - then)
        then = now


async def flood(runtime: Runtime, kind: str, message: Sequence[tuple[int, int]]) -> Flood:
    """Send everything, and wait until all of it is counted and cleaned up."""
    gaps: list[int] = []
    handlers: list[int] = []
    start = time.perf_counter_ns()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(take_turns, gaps)
        await trio.lowlevel.checkpoint()
        for first in range(0, len(message), MESSAGE):
            piece = list(message[first : first + MESSAGE])
            begun = time.perf_counter_ns()
            await runtime.forget(piece)
            handlers.append(time.perf_counter_ns() - begun)
        while runtime.forgets.waiting:
            await trio.lowlevel.checkpoint()
        await runtime.workers.flush()
        while not gaps:  # so few that all was done in one turn
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    gaps.sort()
    return Flood(
        kind,
        runtime.volume.policy.name,
        len(message),
        len(handlers),
        max(handlers, default=0) / 1e6,
        gaps[-1] / 1e6,
        gaps[len(gaps) * 99 // 100] / 1e6,
        (time.perf_counter_ns() - start) / 1e9,
    )


async def clean_inodes(runtime: Runtime, count: int) -> list[tuple[int, int]]:
    """Inodes that owe nothing, as a message of FORGETs."""
    lookup = runtime.volume.inodes.lookup
    for ino in range(FIRST_INO, FIRST_INO + count):
        lookup(ino, 1)
    return [(ino, 1) for ino in range(FIRST_INO, FIRST_INO + count)]


async def orphans(runtime: Runtime, count: int) -> list[tuple[int, int]]:
    """Files that were deleted while the kernel held lookups of them."""
    message = []
    for number in range(count):
        name = b"%d" % number
        record = await runtime.run(namespace.create, runtime.volume, ROOT, name, NewInode(FILE))
        runtime.volume.lookup_count(record)
        await runtime.run(namespace.unlink, runtime.volume, ROOT, name)
        message.append((record.ino, 1))
    await runtime.sync()
    return message


async def floods(evict: str, parameters: Parameters, tell: Callable[[str], None]) -> list[Flood]:
    """Both floods under one policy."""
    found = []
    for kind, make, count in (("clean", clean_inodes, parameters.clean), ("orphans", orphans, parameters.orphans)):
        tell(f"{evict}: {count:,} {kind}")
        runtime = make_runtime(evict)
        collect_briefly()  # as the daemon does
        async with trio.open_nursery() as nursery:
            await runtime.start(nursery)
            message = await make(runtime, count)
            found.append(await flood(runtime, kind, message))
            nursery.cancel_scope.cancel()
    return found


class Parameters(msgspec.Struct, frozen=True):
    """Inodes of the floods."""

    clean: int = 1_000_000
    orphans: int = 100_000


def measure(side: Side, parameters: Parameters, surroundings: Surroundings, number: int) -> Pass:
    """One policy."""
    found = trio.run(floods, side.name, parameters, surroundings.tell)
    counters: dict[str, float] = {}
    for one in found:
        counters[f"{one.kind}_longest_turn_seconds"] = one.stall_ms_max / 1e3
        counters[f"{one.kind}_p99_turn_seconds"] = one.stall_ms_p99 / 1e3
        counters[f"{one.kind}_longest_handler_seconds"] = one.handler_ms_max / 1e3
        counters[f"{one.kind}_flood_seconds"] = one.seconds
    broken = [
        f"{one.kind}: a turn was put off by {one.stall_ms_max:.1f} ms; promised are {STALL_MS_MAX} ms"
        for one in found
        if one.stall_ms_max > STALL_MS_MAX
    ]
    return value_pass(side, sum(one.seconds for one in found), counters, broken=broken)


def tell(passes: Sequence[Pass], parameters: Parameters) -> list[str]:
    """The longest turns, by policy."""
    said = []
    kinds = {"clean": f"{parameters.clean:,} clean inodes", "orphans": f"{parameters.orphans:,} orphans"}
    for one in passes:
        values = [
            f"{one.counters[f'{kind}_longest_turn_seconds'] * 1e3:.1f} ms ({words}; handler at most "
            f"{one.counters[f'{kind}_longest_handler_seconds'] * 1e3:.1f} ms)"
            for kind, words in kinds.items()
        ]
        said.append(f"{one.side}: a flood of FORGETs put the turn of others off by up to {' and '.join(values)}")
    return said


SCENARIO = SimpleScenario(
    name="forgets",
    mechanism=(
        "A flood of FORGETs, on a volume in memory, beside a task that only takes its turn: how long the event loop is "
        "kept, which no other request gets past."
    ),
    parameters=Parameters,
    work=measure,
    side_list=(Side("inline", "deferfs, inline", "inline"), Side("deferred", "deferfs, deferred", "deferred")),
    measures=tuple(
        Measure(f"{kind}_{what}_seconds", "value", f"{words}, {kind}", "closed")
        for kind in ("clean", "orphans")
        for what, words in (("longest_turn", "longest turn of others"), ("longest_handler", "longest handler"))
    ),
    lacking=lambda side, parameters: "",
    tell=tell,
)
