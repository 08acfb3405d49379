"""Carries out `deferfs ctl DIR KEY=VALUE`.

The keys and their values are defined in `deferfs.contract.settings`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from deferfs.contract import settings
from deferfs.contract.setting import Setting
from deferfs.contract.settings import LIVE
from deferfs.contract.values import Whole, WrongValueError
from deferfs.errors import UsageError

if TYPE_CHECKING:
    from deferfs.mount.runtime.runtime import Runtime

V = TypeVar("V")
Change = Callable[["Runtime", Any], Awaitable[str | None]]
"""Carries out one change; returns the text to print instead of KEY=VALUE, if any. UsageError or FsError."""

_INODE: Final = Whole(1, (1 << 63) - 1)


async def control(runtime: Runtime, key: str, text: str) -> str:
    """Carry out one request; returns what was done, in one line. UsageError for a bad request, FsError on failure."""
    setting, change = LIVE.get(key), CHANGES.get(key)
    if setting is None or change is None:
        raise UsageError(f"cannot set {key}={text}: the keys are {', '.join(sorted(LIVE))}")
    return await change(runtime, setting.change(text)) or f"{key}={text}"


def _set_by(setting: Setting[V], setter_of: Callable[[Runtime], Callable[[V], None]]) -> tuple[str, Change]:
    """A setting that a method of some component takes."""

    async def change(runtime: Runtime, value: V) -> None:
        setter_of(runtime)(value)

    return setting.key, change


async def _commit(runtime: Runtime, seconds: float) -> None:
    runtime.write_back.commit_seconds = seconds


async def _gc_in_core(runtime: Runtime, inodes: int) -> None:
    runtime.volume.gc.in_core_max = inodes


async def _gc_delay(runtime: Runtime, seconds: float) -> None:
    runtime.engine.workers.delay_seconds = seconds


async def _drain(runtime: Runtime, seconds: float) -> None:
    runtime.closing.drain_seconds = seconds


async def _memory(runtime: Runtime, size: int) -> None:
    runtime.engine.reclaim.set_memory(size)


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


CHANGES: Final = dict[str, Change](
    (
        _set_by(settings.EVICT, lambda runtime: runtime.volume.set_policy),
        (settings.COMMIT.key, _commit),
        _set_by(settings.GC_WORKERS, lambda runtime: runtime.workers.set_count),
        (settings.GC_IN_CORE.key, _gc_in_core),
        (settings.GC_DELAY.key, _gc_delay),
        _set_by(settings.GC_RATE, lambda runtime: runtime.workers.pace.set_rate),
        (settings.MEMORY.key, _memory),
        _set_by(settings.BACKGROUND_RECLAIM, lambda runtime: runtime.engine.reclaim.set_works),
        _set_by(settings.POLL, lambda runtime: runtime.busy_poll.set_limit),
        _set_by(settings.THROTTLE_INODES, lambda runtime: partial(runtime.engine.throttle.set_amount, "inodes")),
        _set_by(settings.THROTTLE_BYTES, lambda runtime: partial(runtime.engine.throttle.set_amount, "bytes")),
        _set_by(settings.THROTTLE_EXTENTS, lambda runtime: partial(runtime.engine.throttle.set_amount, "extents")),
        _set_by(settings.THROTTLE_AGE, lambda runtime: partial(runtime.engine.throttle.set_duration, "age_seconds")),
        _set_by(
            settings.THROTTLE_DEADLINE,
            lambda runtime: partial(runtime.engine.throttle.set_duration, "deadline_seconds"),
        ),
        _set_by(settings.PREALLOCATION_LIFETIME, lambda runtime: runtime.engine.eviction.set_lifetime),
        (settings.DRAIN.key, _drain),
        (settings.FREEZE_LIMIT.key, _freeze_limit),
        (settings.GC.key, _gc),
        (settings.FREEZE.key, _freeze),
        (settings.THAW.key, _thaw),
        (settings.READ_ONLY.key, _read_only),
        (settings.DROP_CACHES.key, _drop_caches),
        (settings.TRACE.key, _trace),
        (settings.LOCKDEP.key, _lockdep),
    )
)
"""The handler of each key. `sync` is a request of its own, as the kernel has to write back first."""
