"""Does a flood of FORGETs stall the event loop?

One million clean inodes and a hundred thousand orphans, in messages as large as the kernel makes them, on a volume in
memory: what is timed is the daemon's own work, not a disk. Beside them runs a task that does nothing but take its turn;
the longest time between two of its turns is how long a request would have waited. Deferred, the handler of a message
never awaits; inline, it waits for every cleanup, and others get their turn meanwhile.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click
import msgspec
import trio

from bench.main import RESULTS, run_scenario, say
from deferfs.device import MemoryDevice
from deferfs.mount.runtime import Runtime
from deferfs.mount.session import collect_seldom
from deferfs.store.io import run_job
from deferfs.store.memory import Memory
from deferfs.store.mkfs import make_filesystem, plan_geometry
from deferfs.store.recovery import read_superblock
from deferfs.store.store import open_store
from deferfs.volume import namespace
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
    device = MemoryDevice(IMAGE_BYTES)
    geometry = plan_geometry(IMAGE_BYTES, block_size=4096, uuid=bytes(16), hash_key=bytes(16), now_ns=1)
    run_job(device, make_filesystem(geometry))
    superblock = run_job(device, read_superblock(device.size))
    store = run_job(
        device, open_store(superblock, Memory(4 << 30), clock=time.time_ns, entropy=itertools.count(1).__next__)
    )
    return Runtime(device, Volume(store, evict=evict))


async def take_turns(gaps: list[int]) -> None:
    """How long each turn of the others was, in ns."""
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
        nursery.cancel_scope.cancel()
    gaps.sort()
    return Flood(
        kind,
        runtime.volume.policy.name,
        len(message),
        len(handlers),
        max(handlers) / 1e6,
        gaps[-1] / 1e6,
        gaps[len(gaps) * 99 // 100] / 1e6,
        (time.perf_counter_ns() - start) / 1e9,
    )


async def clean_inodes(runtime: Runtime, count: int) -> list[tuple[int, int]]:
    lookup = runtime.volume.inodes.lookup
    for ino in range(FIRST_INO, FIRST_INO + count):
        lookup(ino, 1)
    return [(ino, 1) for ino in range(FIRST_INO, FIRST_INO + count)]


async def orphans(runtime: Runtime, count: int) -> list[tuple[int, int]]:
    """Files that were deleted while the kernel knew them."""
    message = []
    for number in range(count):
        name = b"%d" % number
        record = await runtime.run(namespace.create, runtime.volume, ROOT, name, FILE, 0, 0)
        runtime.volume.lookup_count(record)
        await runtime.run(namespace.unlink, runtime.volume, ROOT, name)
        message.append((record.ino, 1))
    await runtime.sync()
    return message


async def measure(evict: str, clean: int, deleted: int) -> list[Flood]:
    """Both floods under one policy."""
    found = []
    for kind, make, count in (("clean", clean_inodes, clean), ("orphans", orphans, deleted)):
        say(f"{evict}: {count} {kind}")
        runtime = make_runtime(evict)
        collect_seldom()  # as the daemon does
        async with trio.open_nursery() as nursery:
            await runtime.start(nursery)
            message = await make(runtime, count)
            found.append(await flood(runtime, kind, message))
            nursery.cancel_scope.cancel()
    return found


@click.command()
@click.option("--clean", type=click.IntRange(min=1), default=1_000_000, show_default=True)
@click.option("--orphans", "deleted", type=click.IntRange(min=1), default=100_000, show_default=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path), default=RESULTS / "forgets.json")
def command(clean: int, deleted: int, json_file: Path) -> None:
    """Floods of FORGETs, and how long they keep the event loop."""
    found = [flood for evict in ("deferred", "inline") for flood in trio.run(measure, evict, clean, deleted)]
    json_file.write_bytes(msgspec.json.format(msgspec.json.encode(found)) + b"\n")
    for one in found:
        kept = "kept" if one.stall_ms_max <= STALL_MS_MAX else "NOT KEPT"
        click.echo(
            f"{one.evict:8} {one.inodes:>9} {one.kind:7} in {one.messages} messages: {one.seconds:6.1f} s;"
            f" handler at most {one.handler_ms_max:8.1f} ms; stall p99 {one.stall_ms_p99:5.2f} ms,"
            f" at most {one.stall_ms_max:5.1f} ms (bound {STALL_MS_MAX} ms {kept})"
        )
    say(f"wrote {json_file}")


if __name__ == "__main__":
    run_scenario(command)
