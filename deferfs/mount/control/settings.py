"""Carries out `deferfs ctl DIR KEY=VALUE`.

The keys and their values are defined in `deferfs.contract.settings`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from deferfs.contract import settings
from deferfs.contract.settings import LIVE, EvictMode
from deferfs.contract.values import Whole, WrongValueError
from deferfs.errors import UsageError

if TYPE_CHECKING:
    from deferfs.mount.runtime.runtime import Runtime

Change = Callable[["Runtime", Any], Awaitable[str | None]]
"""Carries out one change; returns the text to print instead of KEY=VALUE, if any. UsageError or FsError."""

_INODE: Final = Whole(1, (1 << 63) - 1)


async def control(runtime: Runtime, key: str, text: str) -> str:
    """Carry out one request; returns what was done, in one line. UsageError for a bad request, FsError on failure."""
    setting, change = LIVE.get(key), CHANGES.get(key)
    if setting is None or change is None:
        raise UsageError(f"cannot set {key}={text}: the keys are {', '.join(sorted(LIVE))}")
    return await change(runtime, setting.change(text)) or f"{key}={text}"


async def _evict(runtime: Runtime, mode: EvictMode) -> None:
    runtime.volume.set_policy(mode)


async def _commit(runtime: Runtime, seconds: float) -> None:
    runtime.write_back.commit_seconds = seconds


async def _gc_workers(runtime: Runtime, count: int) -> None:
    runtime.workers.set_count(count)


async def _gc_in_core(runtime: Runtime, inodes: int) -> None:
    runtime.volume.gc.in_core_max = inodes


async def _gc_delay(runtime: Runtime, seconds: float) -> None:
    runtime.engine.workers.delay_seconds = seconds


async def _gc_rate(runtime: Runtime, rate: float) -> None:
    runtime.workers.pace.set_rate(rate)


async def _poll(runtime: Runtime, limit_us: int) -> None:
    runtime.busy_poll.set_limit(limit_us)


async def _background_reclaim(runtime: Runtime, on: bool) -> None:
    runtime.engine.reclaim.set_works(on)


async def _memory(runtime: Runtime, size: int) -> None:
    runtime.engine.reclaim.set_memory(size)


async def _throttle_inodes(runtime: Runtime, limit: int) -> None:
    runtime.engine.throttle.inodes = limit
    runtime.engine.throttle.progress()


async def _throttle_bytes(runtime: Runtime, limit: int) -> None:
    runtime.engine.throttle.bytes = limit
    runtime.engine.throttle.progress()


async def _throttle_extents(runtime: Runtime, limit: int) -> None:
    runtime.engine.throttle.extents = limit
    runtime.engine.throttle.progress()


async def _throttle_age(runtime: Runtime, seconds: float) -> None:
    runtime.engine.throttle.age_seconds = seconds
    runtime.engine.throttle.progress()


async def _throttle_deadline(runtime: Runtime, seconds: float) -> None:
    runtime.engine.throttle.deadline_seconds = seconds
    runtime.engine.throttle.progress()


async def _preallocation_lifetime(runtime: Runtime, seconds: float) -> None:
    runtime.engine.eviction.set_lifetime(seconds)


async def _drain(runtime: Runtime, seconds: float) -> None:
    runtime.closing.drain_seconds = seconds


async def _freeze_limit(runtime: Runtime, seconds: float) -> None:
    runtime.engine.freezing.limit_seconds = seconds


async def _gc(runtime: Runtime, action: tuple[str, str]) -> None:
    workers = runtime.workers
    match action:
        case ("flush" | "flush-below" as verb, ino) if ino:
            target = _inode(verb, ino)
            await (workers.flush_inode(target) if verb == "flush" else workers.flush_below(target))
        case ("push", _):
            workers.push()
        case ("flush", _):
            await runtime.blockgc.flush()
            await workers.flush()
        case ("stop", _):
            await workers.stop()
        case ("start", _):
            if runtime.store.frozen:
                raise UsageError("frozen: thaw it first")
            workers.resume()
        case ("retry", _):
            await workers.release_quarantine()


def _inode(verb: str, text: str) -> int:
    try:
        return _INODE.parse(text)
    except WrongValueError as error:
        raise UsageError(f"the inode of gc={verb} {error}, not {text!r}") from None


async def _freeze(runtime: Runtime, on: bool) -> None:
    await (runtime.freezer.freeze() if on else runtime.freezer.thaw())


async def _thaw(runtime: Runtime, on: bool) -> None:
    if on:
        await runtime.freezer.thaw()


async def _read_only(runtime: Runtime, on: bool) -> None:
    await (runtime.freezer.make_read_only() if on else runtime.freezer.make_writable())


async def _drop_caches(runtime: Runtime, _word: str) -> None:
    await runtime.reclaimer.shrink(1 << 62)


async def _trace(runtime: Runtime, path: str) -> None:
    await (runtime.timeline.stop() if path == "off" else runtime.timeline.start(path))


async def _lockdep(runtime: Runtime, _word: str) -> str:
    return "\n".join((*runtime.checker.report(), f"circular waits broken: {runtime.engine.log_space.broken_total}"))


CHANGES: Final[dict[str, Change]] = {
    settings.EVICT.key: _evict,
    settings.COMMIT.key: _commit,
    settings.GC_WORKERS.key: _gc_workers,
    settings.GC_IN_CORE.key: _gc_in_core,
    settings.GC_DELAY.key: _gc_delay,
    settings.GC_RATE.key: _gc_rate,
    settings.MEMORY.key: _memory,
    settings.BACKGROUND_RECLAIM.key: _background_reclaim,
    settings.POLL.key: _poll,
    settings.THROTTLE_INODES.key: _throttle_inodes,
    settings.THROTTLE_BYTES.key: _throttle_bytes,
    settings.THROTTLE_EXTENTS.key: _throttle_extents,
    settings.THROTTLE_AGE.key: _throttle_age,
    settings.THROTTLE_DEADLINE.key: _throttle_deadline,
    settings.PREALLOCATION_LIFETIME.key: _preallocation_lifetime,
    settings.DRAIN.key: _drain,
    settings.FREEZE_LIMIT.key: _freeze_limit,
    settings.GC.key: _gc,
    settings.FREEZE.key: _freeze,
    settings.THAW.key: _thaw,
    settings.READ_ONLY.key: _read_only,
    settings.DROP_CACHES.key: _drop_caches,
    settings.TRACE.key: _trace,
    settings.LOCKDEP.key: _lockdep,
}
"""The handler of each key. `sync` is a request of its own, as the kernel has to write back first."""
