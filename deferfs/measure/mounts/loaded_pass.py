"""One pass of loads on a mount: shared by the scenarios inside deferfs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from deferfs.measure.host.cgroup import MemoryCgroup
from deferfs.measure.host.tracing import ReclaimTrace, totals_by_name
from deferfs.measure.mounts.account import Account, Accountable
from deferfs.measure.scenario import Loop, Pass, Side, Surroundings, Wait
from deferfs.measure.work import race
from deferfs.measure.work.processes import Job

PASS_SECONDS_MAX: Final = 300.0
"""A load that takes longer is given up."""
MIB: Final = 1 << 20


class Jobs(NamedTuple):
    """The `main` jobs end by themselves; then those `beside` them are stopped."""

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
    trace: ReclaimTrace | None = None,
    ready: Callable[[], object] = lambda: None,
) -> Pass:
    """Run the loads, in `cgroup`; then close the mount, which finishes all cleanups. `ready` is called when all loads
    are prepared, before the clock starts. `hot`: a file kept open meanwhile, so that it stays in core. `trace`: the
    kernel's direct reclaims by each load are added to the waits.
    """
    with contextlib.ExitStack() as stack:
        if hot is not None:
            stack.callback(os.close, os.open(hot, os.O_RDONLY))
        racers = stack.enter_context(race.ready(loads.main, loads.beside, surroundings.own, cgroup))
        ready()
        account = Account(mount)
        if trace is not None:
            trace.clear()
        raced = racers.run(PASS_SECONDS_MAX, account.watch)
        reclaims = kernel_waits(trace, racers.names)
    account.settle()
    return Pass(
        side=side.name,
        loop=loop,
        outcome=raced.outcome,
        seconds=raced.seconds + account.owed_seconds,
        series=raced.series,
        counters={"load_seconds": raced.seconds, **account.counters()},
        waits=account.waits() | reclaims,
        notes=[trace.problem] if trace is not None and trace.problem else [],
    )


def kernel_waits(trace: ReclaimTrace | None, names: Mapping[int, str]) -> dict[str, Wait]:
    """The direct reclaims of the processes in `names` (pid -> name) as waits; those without any are left out."""
    if trace is None:
        return {}
    totals = totals_by_name(trace.read(), names).items()
    return {f"kernel reclaim, {name}": Wait(one.count, one.total_ns, one.max_ns) for name, one in totals if one.count}


@contextlib.contextmanager
def memory_cgroup(surroundings: Surroundings, mib: int) -> Iterator[MemoryCgroup | None]:
    """A memory cgroup of `mib` MiB for the length of the block; None when it is 0 or there is no memory controller."""
    if surroundings.hierarchy is None or not mib:
        yield None
        return
    with MemoryCgroup(surroundings.hierarchy, f"deferfs-bench-{os.getpid()}", mib * MIB) as cgroup:
        yield cgroup
