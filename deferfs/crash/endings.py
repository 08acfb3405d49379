"""Actions that end a run or interrupt it: power failures, a failing disk, the unmount."""

from __future__ import annotations

import random
from collections.abc import Callable

from deferfs.crash.oracle import Verdict
from deferfs.crash.states import Shredded, Subset
from deferfs.crash.world import World
from deferfs.device import Chooser, Fault, FlushRecord, Request

Numbers = tuple[int, int, int, int]


def _chooser(n: Numbers, writes: int) -> Chooser:
    """Which of `writes` unflushed writes reach the disk."""
    everything = (1 << writes) - 1
    random_bits = random.Random(n[2]).getrandbits(writes + 64)
    if n[1] % 5 == 0:
        return Shredded(n[2], (0, 1, 4, 7, 8)[n[3] % 5])
    if n[1] % 5 == 1:
        return Subset(random_bits, n[3] % (writes + 1), random_bits >> writes)
    if n[1] % 5 == 2:
        return Subset((1 << n[2] % (writes + 1)) - 1)
    if n[1] % 5 == 3:
        return Subset(everything ^ 1 << n[2] % (writes + 1))
    return Subset(everything ^ (1 << n[2] % (writes + 1)) - 1)


def _moment(world: World, number: int, back: int) -> int:
    """A position in the last `back` records: half of the time just before a flush, where most writes are unflushed."""
    records = world.twin.device.records
    last = len(records)
    first = max(0, last - back)
    flushes = [at for at in range(first, last) if isinstance(records[at], FlushRecord)]
    if number % 2 and flushes:
        return max(first, flushes[number // 2 % len(flushes)] - number // 64 % 2)
    return last - number // 2 % (last - first + 1)


def _drawn(world: World, n: Numbers, back: int) -> tuple[int, Chooser]:
    position = _moment(world, n[0], back)
    return position, _chooser(n, len(world.twin.oracle.states.unflushed(position)))


def _take(world: World, n: Numbers, back: int) -> Verdict:
    return world.cut(*_drawn(world, n, back))


def _cut(world: World, n: Numbers) -> None:
    """Judge a power failure at some position, and continue as if it had not happened."""
    _take(world, n, 60)


def _crash(world: World, n: Numbers) -> None:
    """Continue after a power failure from the resulting image."""
    world.go_on_from(_take(world, n, 20).image)


def _power_failure(world: World, n: Numbers) -> None:
    """As `_crash`, without judging the image: only its consequences are checked."""
    world.go_on_from(world.twin.oracle.states.image(*_drawn(world, n, 20)))


def _unmount(world: World, n: Numbers) -> None:
    """Unmount cleanly, which ends the run."""
    world.twin.unmount()


def _fail(world: World, n: Numbers) -> None:
    """Let a flush or a write of the disk fail soon."""
    kind = (Request.FLUSH, Request.FLUSH, Request.WRITE)[n[0] % 3]
    world.twin.below.add(Fault(frozenset({kind}), skip=n[1] % 8))


CRASHES: dict[str, Callable[[World, Numbers], None]] = {
    "cut": _cut,
    "crash": _crash,
    "power_failure": _power_failure,
}
ENDS: dict[str, Callable[[World, Numbers], None]] = {"fail": _fail, "unmount": _unmount}
"""Actions after which a run ends."""
