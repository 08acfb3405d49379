"""One pass of loads on a mount: what the scenarios inside of deferfs have in common."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from deferfs.measure import race
from deferfs.measure.account import Account, Accountable
from deferfs.measure.cgroup import MemoryCgroup
from deferfs.measure.processes import Job
from deferfs.measure.scenario import Loop, Pass, Side, Surroundings

PASS_SECONDS_MAX: Final = 300.0
MIB: Final = 1 << 20


class Jobs(NamedTuple):
    """`main` end by themselves; those `beside` them are stopped then."""

    main: Sequence[Job]
    beside: Sequence[Job] = ()


def loaded_pass(
    side: Side,
    loop: Loop,
    mount: Accountable,
    loads: Jobs,
    surroundings: Surroundings,
    *,
    cgroup: MemoryCgroup | None = None,
    hot: Path | None = None,
    ready: Callable[[], object] = lambda: None,
) -> Pass:
    """The loads, in `cgroup`; then all that is owed is paid, by closing the mount. `ready` is called when all loads
    are prepared, before the clock starts. `hot`: a file that stays open while they run, so that the daemon keeps it.
    """
    with contextlib.ExitStack() as stack:
        if hot is not None:
            stack.callback(os.close, os.open(hot, os.O_RDONLY))
        racers = stack.enter_context(race.ready(loads.main, loads.beside, surroundings.own, cgroup))
        ready()
        account = Account(mount)
        raced = racers.run(PASS_SECONDS_MAX, account.watch)
    account.settle()
    return Pass(
        side=side.name,
        loop=loop,
        outcome=raced.outcome,
        seconds=raced.seconds + account.owed_seconds,
        series=raced.series,
        counters={"load_seconds": raced.seconds, **account.counters()},
        waits=account.waits(),
    )


@contextlib.contextmanager
def memory_cgroup(surroundings: Surroundings, mib: int) -> Iterator[MemoryCgroup | None]:
    """A memory cgroup of `mib` MiB for the length of the block; None where it is 0 or there is no memory controller."""
    if surroundings.hierarchy is None or not mib:
        yield None
        return
    with MemoryCgroup(surroundings.hierarchy, f"deferfs-bench-{os.getpid()}", mib * MIB) as cgroup:
        yield cgroup
