"""The name of the request or background task that is running, and its lane in the timeline.

Waits are attributed to it, and drawn into its lane while a timeline is recorded (`timeline.py`). It is kept in a
context variable, so that it follows the task through everything it awaits.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from deferfs.mount.runtime.timeline import Lane, Timeline

if TYPE_CHECKING:
    from deferfs.reclaim.inode import InCoreInode


class Actor:
    """A request or background task. `lane` is set while a timeline is recorded."""

    __slots__ = ("lane", "name")

    def __init__(self, name: str, lane: Lane | None = None) -> None:
        self.name = name
        self.lane = lane


_UNNAMED: Final = Actor("other")
_caller: ContextVar[int] = ContextVar("deferfs_caller", default=0)
_actor: ContextVar[Actor] = ContextVar("deferfs_actor", default=_UNNAMED)


def set_caller(pid: int) -> None:
    """Record the thread (`pid`) that sent the running request; 0: unknown."""
    _caller.set(pid)


def caller() -> int:
    """The thread that sent the running request, waits for it, and may be killed meanwhile. 0: unknown."""
    return _caller.get()


class Activity:
    """The running requests and tasks of one mount."""

    def __init__(self, timeline: Timeline) -> None:
        self.timeline = timeline

    # --- requests ---
    def begin(self, actor: Actor, family: str = "foreground") -> Actor:
        """A request begins; pass the returned actor to `end`. `actor` may be shared by all requests of a kind."""
        if self.timeline.active:
            actor = Actor(actor.name, self.timeline.take_lane(family))
        _actor.set(actor)
        return actor

    def end(self, actor: Actor, start_ns: int, end_ns: int) -> None:
        """The request has ended; times of `perf_counter_ns`."""
        if actor.lane is not None:
            self.timeline.slice(actor.lane, actor.name, start_ns, end_ns)
            self.timeline.give_lane(actor.lane)

    # --- background tasks ---
    def be(self, name: str) -> None:
        """Attribute waits of the current task to the background task `name`."""
        _actor.set(Actor(name))

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """A span of a background task, in a lane of that name."""
        start = time.perf_counter_ns()
        try:
            yield
        finally:
            if self.timeline.active:
                self.timeline.slice(self.timeline.fixed_lane(name), name, start, time.perf_counter_ns())

    # --- events ---
    def slice(self, name: str, start_ns: int, end_ns: int, **arguments: object) -> str:
        """Draw an event with a duration into the lane of the running task; returns the name of the task."""
        actor = _actor.get()
        if self.timeline.active:
            lane = actor.lane if actor.lane is not None else self.timeline.fixed_lane(actor.name)
            self.timeline.slice(lane, name, start_ns, end_ns, **arguments)
        return actor.name

    def instant(self, name: str) -> None:
        """Draw an event of this moment into the lane of the running task."""
        if self.timeline.active:
            actor = _actor.get()
            lane = actor.lane if actor.lane is not None else self.timeline.fixed_lane(actor.name)
            self.timeline.instant(lane, name)

    def inactivated(self, inode: InCoreInode, start_ns: int, now_ns: int) -> None:
        """An inactivation that began at `start_ns` (of `perf_counter_ns`) has ended. `now_ns` is the current time of
        the clock used for `queued_ns`."""
        if not self.timeline.active:
            return
        end = time.perf_counter_ns()
        self.slice("inactivate", start_ns, end, inode=inode.ino, orphan=inode.orphan)
        if inode.queued_ns and _actor.get().name.startswith("inodegc"):
            self.timeline.span_across("queued", inode.ino, end - (now_ns - inode.queued_ns), start_ns)
