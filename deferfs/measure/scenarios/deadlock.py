"""The deadlock between reclaim and the log, on purpose: an operation holds log space and needs memory, whose reclaim
evicts inodes, whose inactivation needs log space.

The smallest possible log, and a memory budget that is cut to the minimum while operations wait for the log. Writers set
attributes so large that two of them fill a transaction; before, the memory is filled with metadata and with files that
the kernel has forgotten, each of which owes an access time to be written at eviction. Inline, the report shows the
cycle with both stacks, and the daemon breaks it each time it occurs; deferred, there is none.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from threading import Thread
from typing import Final

import msgspec

from deferfs.contract.requests import Set
from deferfs.errors import DeferfsError
from deferfs.limits import MEMORY_BYTES_MIN
from deferfs.measure.mounts.daemon import daemon_of, statistics_of
from deferfs.measure.mounts.rivals import Deferfs, fresh
from deferfs.measure.mounts.syncing import sync_filesystem
from deferfs.measure.scenario import Ask, Measure, Pass, Side, Stall, Surroundings, Wait
from deferfs.measure.simple import SimpleScenario, value_pass
from deferfs.measure.work.small_files import DROP_NAMES

MKFS: Final = ("-b", "1024", "--journal-size", "256K")
MOUNT: Final = "relatime"
MEMORY: Final = ("32M", str(MEMORY_BYTES_MIN))
"""The budget while files are read, and the one it is cut to."""
IMAGE_BYTES: Final = 256 << 20
FILES: Final = 1000
BALLAST: Final = 300
"""Files whose attributes are read to fill the memory."""
DROPS_MAX: Final = 50
"""Attempts: recently used entries survive the first one, and the FORGETs arrive asynchronously."""
WRITERS: Final = 8
WRITES: Final = 10
"""Writes of each writer in a round."""
ATTRIBUTE_BYTES: Final = (38_000, 33_000)
"""About 44 and 39 blocks of a transaction of 85."""


def make_files(root: Path) -> None:
    """Files to read, and ballast."""
    for number in range(FILES):
        (root / f"f{number}").write_bytes(b"content")
    for number in range(BALLAST):
        path = root / f"b{number}"
        path.touch()
        os.setxattr(path, "user.large", bytes(ATTRIBUTE_BYTES[0]))
    sync_filesystem(root)  # the kernel forgets only what is clean


def set_value(root: Path, ask: Ask, key: str, value: str) -> str:
    """As `deferfs ctl`; what it prints."""
    return ask(root, Set(key=key, value=value))


def fill_memory(root: Path, ask: Ask) -> None:
    """Fill it with metadata, and with forgotten files whose new access time has not been written."""
    set_value(root, ask, "memory", MEMORY[0])
    for number in range(FILES):
        path = root / f"f{number}"
        os.utime(path, ns=(0, 1))  # so that reading it changes the time
        path.read_bytes()
    for number in range(BALLAST):
        os.getxattr(root / f"b{number}", "user.large")
    for _ in range(DROPS_MAX):
        Path("/proc/sys/vm/drop_caches").write_text(DROP_NAMES)
        if statistics_of(root, ask).inodes.idle > FILES // 2:
            return
    raise DeferfsError(f"{root}: the kernel forgets nothing")


def write_attributes(root: Path, ask: Ask) -> None:
    """Several writers, most of which wait for the log at any time; meanwhile the memory is cut."""

    def write(number: int) -> None:
        value = bytes(ATTRIBUTE_BYTES[number % 2])
        try:
            for _ in range(WRITES):
                os.setxattr(root / f"b{number}", "user.large", value)
        except OSError as error:
            errors.append(error)

    errors: list[OSError] = []
    threads = [Thread(target=write, args=(number,)) for number in range(WRITERS)]
    for thread in threads:
        thread.start()
    set_value(root, ask, "memory", MEMORY[1])
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


class Parameters(msgspec.Struct, frozen=True):
    """`rounds` of each pass."""

    rounds: int = 5


def measure(side: Side, parameters: Parameters, surroundings: Surroundings, number: int) -> Pass:
    """One policy on a fresh filesystem."""
    ask = surroundings.ask
    with fresh(Deferfs(f"{MOUNT},evict={side.name}", IMAGE_BYTES, MKFS), surroundings.scratch) as root:
        daemon_of(root, surroundings)
        make_files(root)
        fill_memory(root, ask)  # again: what was read before may still be in the page cache
        start = time.monotonic()
        for _ in range(parameters.rounds):
            fill_memory(root, ask)
            write_attributes(root, ask)
        elapsed = time.monotonic() - start
        statistics = statistics_of(root, ask)
        report = set_value(root, ask, "lockdep", "report")
    context, log = statistics.reclaim_context, statistics.waits["log"]
    counters = {
        "direct_reclaims_total": float(statistics.memory.direct_reclaims_total),
        "forbidden_waits_total": float(context.violations_total),
        "lock_order_cycles_total": float(context.lock_order_cycles),
        "circular_waits_broken_total": float(context.circular_waits_broken_total),
    }
    words = "wait for the log; below, the report of the lock classes"
    return value_pass(
        side,
        elapsed,
        counters,
        waits={"log": Wait(log.count, log.total_ns, log.max_ns)},
        stalls=[Stall(words, log.max_ns, report.splitlines(), 0)],
        broken=["deferred: an operation waited inside of reclaim"]
        if side.name == "deferred" and context.violations_total + context.circular_waits_broken_total
        else [],
    )


def tell(passes: Sequence[Pass], parameters: Parameters) -> list[str]:
    """The counts, side by side."""
    said = []
    for name in dict.fromkeys(one.side for one in passes):
        ours = [one.counters for one in passes if one.side == name]

        def total(counter: str, ours: list[dict[str, float]] = ours) -> int:
            return round(sum(one[counter] for one in ours))

        said.append(
            f"{name}: {total('direct_reclaims_total')} direct reclaims, {total('forbidden_waits_total'):,} waits "
            f"inside of reclaim, {total('circular_waits_broken_total'):,} that could never end and were broken, "
            f"{max(one['lock_order_cycles_total'] for one in ours):.0f} possible cycles of lock classes"
        )
    return said


SCENARIO = SimpleScenario(
    name="deadlock",
    mechanism=(
        "An operation that holds log space reclaims memory, whose reclaim evicts an inode, whose cleanup waits for log "
        "space: a cycle of waits, which only inline eviction has."
    ),
    parameters=Parameters,
    work=measure,
    side_list=(Side("inline", "deferfs, inline", "inline"), Side("deferred", "deferfs, deferred", "deferred")),
    measures=(
        Measure("forbidden_waits_total", "value", "waits inside of reclaim", "closed"),
        Measure("seconds", "value", "all rounds", "closed"),
    ),
    tell=tell,
)
