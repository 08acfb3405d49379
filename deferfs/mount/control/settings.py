"""What may be changed while a filesystem is mounted: `deferfs ctl DIR KEY=VALUE`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from deferfs.errors import UsageError
from deferfs.limits import GC_IN_CORE_LIMIT, GC_RATE_MIN, GC_WORKERS_MAX, MEMORY_BYTES_MIN, POLL_US_MAX
from deferfs.mount.host.options import COMMIT_SECONDS_MAX, COMMIT_SECONDS_MIN
from deferfs.mount.host.units import parse_size

if TYPE_CHECKING:
    from deferfs.mount.runtime.runtime import Runtime

Control = Callable[["Runtime", str, str], Awaitable[str | None]]
"""Carries out one KEY=VALUE; what to print instead of that, if anything. UsageError when the value cannot be
understood, FsError when it cannot be done."""

_COUNT_MAX: Final = 10**12
"""More than there can be: no limit."""


async def control(runtime: Runtime, key: str, value: str) -> str:
    """Carry out one request; what was done, in a line."""
    found = CONTROLS.get(key)
    if found is None:
        raise UsageError(f"cannot set {key}={value}: known are {', '.join(sorted([*CONTROLS, 'sync']))}")
    return await found(runtime, key, value) or f"{key}={value}"


def number(key: str, value: str, low: float, high: float) -> float:
    """The value as a number within bounds."""
    try:
        found = float(value)
    except ValueError:
        raise UsageError(f"{key} must be a number, not {value!r}") from None
    if not low <= found <= high:
        raise UsageError(f"{key} must be from {low:g} to {high:g}, not {value}")
    return found


def integer(key: str, value: str, low: int, high: int) -> int:
    """The value as a whole number within bounds."""
    if not (value.isascii() and value.isdigit() and low <= int(value) <= high):
        raise UsageError(f"{key} must be a whole number from {low} to {high}, not {value!r}")
    return int(value)


def boolean(key: str, value: str) -> bool:
    """The value as a switch: 1 or 0."""
    if value not in ("0", "1"):
        raise UsageError(f"{key} must be 1 or 0, not {value!r}")
    return value == "1"


async def _evict(runtime: Runtime, key: str, value: str) -> None:
    runtime.volume.set_policy(value)


async def _commit(runtime: Runtime, key: str, value: str) -> None:
    runtime.committer.commit_seconds = number(key, value, COMMIT_SECONDS_MIN, COMMIT_SECONDS_MAX)


async def _gc_workers(runtime: Runtime, key: str, value: str) -> None:
    runtime.workers.set_count(integer(key, value, 1, GC_WORKERS_MAX))


async def _gc_in_core(runtime: Runtime, key: str, value: str) -> None:
    runtime.volume.gc.in_core_max = integer(key, value, 0, GC_IN_CORE_LIMIT)


async def _gc_delay(runtime: Runtime, key: str, value: str) -> None:
    runtime.workers.delay_seconds = number(key, value, 0, 60)


async def _gc_rate(runtime: Runtime, key: str, value: str) -> None:
    rate = number(key, value, 0, 1e9)
    if 0 < rate < GC_RATE_MIN:
        raise UsageError(f"{key} must be 0 (no limit) or at least {GC_RATE_MIN:g}, not {value}")
    runtime.workers.pace.set_rate(rate)


async def _poll(runtime: Runtime, key: str, value: str) -> None:
    runtime.busy_poll.set_limit(integer(key, value, 0, POLL_US_MAX))


async def _background_reclaim(runtime: Runtime, key: str, value: str) -> None:
    """on | off"""
    if value not in ("on", "off"):
        raise UsageError(f"{key} must be on or off, not {value!r}")
    runtime.reclaimer.set_works(value == "on")


async def _memory(runtime: Runtime, key: str, value: str) -> None:
    size = parse_size(value)
    if size < MEMORY_BYTES_MIN:
        raise UsageError(f"memory must be at least {MEMORY_BYTES_MIN} bytes, not {value!r}")
    runtime.reclaimer.set_memory(size)


async def _gc(runtime: Runtime, key: str, value: str) -> None:
    """push | flush | flush:INO | flush-below:INO | stop | start | retry"""
    workers = runtime.workers
    verb, _, ino = value.partition(":")
    if verb in ("flush", "flush-below") and ino:
        target = integer(f"the inode of gc={verb}", ino, 1, (1 << 63) - 1)
        await (workers.flush_inode(target) if verb == "flush" else workers.flush_below(target))
    elif value == "push":
        workers.push()
    elif value == "flush":
        await runtime.blockgc.flush()
        await workers.flush()
    elif value == "stop":
        await workers.stop()
    elif value == "start":
        if runtime.store.frozen:
            raise UsageError("frozen: thaw it first")
        workers.resume()
    elif value == "retry":
        await workers.release_quarantine()
    else:
        raise UsageError(f"gc must be push, flush, flush:INODE, flush-below:INODE, stop, start or retry, not {value!r}")


async def _drop_caches(runtime: Runtime, key: str, value: str) -> None:
    if value != "1":
        raise UsageError(f"drop_caches must be 1, not {value!r}")
    await runtime.reclaimer.shrink(1 << 62)


async def _freeze(runtime: Runtime, key: str, value: str) -> None:
    await (runtime.freezer.freeze() if boolean(key, value) else runtime.freezer.thaw())


async def _freeze_limit(runtime: Runtime, key: str, value: str) -> None:
    runtime.freezer.limit_seconds = number(key, value, 0, 1e9)


async def _thaw(runtime: Runtime, key: str, value: str) -> None:
    if boolean(key, value):
        await runtime.freezer.thaw()


async def _read_only(runtime: Runtime, key: str, value: str) -> None:
    await (runtime.freezer.make_read_only() if boolean(key, value) else runtime.freezer.make_writable())


async def _throttle(runtime: Runtime, key: str, value: str) -> None:
    throttle = runtime.throttle
    if key == "throttle_inodes":
        throttle.inodes = integer(key, value, 1, _COUNT_MAX)
    elif key == "throttle_bytes":
        throttle.bytes = parse_size(value)
    elif key == "throttle_extents":
        throttle.extents = integer(key, value, 1, _COUNT_MAX)
    elif key == "throttle_age":
        throttle.age_seconds = number(key, value, 0.001, 86400)
    else:
        throttle.deadline_seconds = number(key, value, 0, 86400)
    throttle.progress()


async def _preallocation_lifetime(runtime: Runtime, key: str, value: str) -> None:
    runtime.blockgc.set_lifetime(number(key, value, 0.1, 1e9))


async def _lockdep(runtime: Runtime, key: str, value: str) -> str:
    """report"""
    if value != "report":
        raise UsageError(f"lockdep must be report, not {value!r}")
    return "\n".join((*runtime.checker.report(), f"circular waits broken: {runtime.circles.broken_total}"))


async def _trace(runtime: Runtime, key: str, value: str) -> None:
    """FILE | off"""
    await (runtime.timeline.stop() if value == "off" else runtime.timeline.start(value))


async def _drain(runtime: Runtime, key: str, value: str) -> None:
    runtime.closing.drain_seconds = number(key, value, 0, 86400)


CONTROLS: Final[dict[str, Control]] = {
    "evict": _evict,
    "commit": _commit,
    "gc_workers": _gc_workers,
    "gc_in_core": _gc_in_core,
    "gc_delay": _gc_delay,
    "gc_rate": _gc_rate,
    "memory": _memory,
    "background_reclaim": _background_reclaim,
    "poll": _poll,
    "gc": _gc,
    "drop_caches": _drop_caches,
    "freeze": _freeze,
    "freeze_limit": _freeze_limit,
    "thaw": _thaw,
    "ro": _read_only,
    "throttle_inodes": _throttle,
    "throttle_bytes": _throttle,
    "throttle_extents": _throttle,
    "throttle_age": _throttle,
    "throttle_deadline": _throttle,
    "preallocation_lifetime": _preallocation_lifetime,
    "drain": _drain,
    "lockdep": _lockdep,
    "trace": _trace,
}
