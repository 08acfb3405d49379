"""Who does what: the name of the request or background task that is running, and its lane in the timeline.

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


NOBODY: Final = Actor("other")
_caller: ContextVar[int] = ContextVar("deferfs_caller", default=0)
_actor: ContextVar[Actor] = ContextVar("deferfs_actor", default=NOBODY)


def set_caller(pid: int) -> None:
    """The running request is that of the thread `pid`; 0: not known."""
    _caller.set(pid)


def caller() -> int:
    """The thread whose request is running: who waits for us, and may be killed meanwhile. 0 when it is not known."""
    return _caller.get()


class Activity:
    """The running activities of one mount."""

    def __init__(self, timeline: Timeline) -> None:
        self.timeline = timeline

    # --- requests ---
    def begin(self, actor: Actor, family: str = "foreground") -> Actor:
        """A request begins; what is returned must be given to `end`. One actor for each kind of request will do."""
        if self.timeline.active:
            actor = Actor(actor.name, self.timeline.take_lane(family))
        _actor.set(actor)
        return actor

    def end(self, actor: Actor, start_ns: int, end_ns: int) -> None:
        """It has ended; times of `perf_counter_ns`."""
        if actor.lane is not None:
            self.timeline.slice(actor.lane, actor.name, start_ns, end_ns)
            self.timeline.give_lane(actor.lane)

    # --- background tasks ---
    def be(self, name: str) -> None:
        """The running task is this background task from now on."""
        _actor.set(Actor(name))

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """Something a background task does, in a lane of that name."""
        start = time.perf_counter_ns()
        try:
            yield
        finally:
            if self.timeline.active:
                self.timeline.slice(self.timeline.fixed_lane(name), name, start, time.perf_counter_ns())

    # --- what they do ---
    def slice(self, name: str, start_ns: int, end_ns: int, **arguments: object) -> str:
        """Something the running task did, drawn into its lane; the name of the task."""
        actor = _actor.get()
        if self.timeline.active:
            lane = actor.lane if actor.lane is not None else self.timeline.fixed_lane(actor.name)
            self.timeline.slice(lane, name, start_ns, end_ns, **arguments)
        return actor.name

    def instant(self, name: str) -> None:
        """Something that happened to the running task just now."""
        if self.timeline.active:
            actor = _actor.get()
            lane = actor.lane if actor.lane is not None else self.timeline.fixed_lane(actor.name)
            self.timeline.instant(lane, name)

    def inactivated(self, inode: InCoreInode, start_ns: int, now_ns: int) -> None:
        """An inactivation that began at `start_ns` (of `perf_counter_ns`) has ended. `now_ns` is the time now by the
        clock that has stamped `queued_ns`."""
        if not self.timeline.active:
            return
        end = time.perf_counter_ns()
        self.slice("inactivate", start_ns, end, inode=inode.ino, orphan=inode.orphan)
        if inode.queued_ns and _actor.get().name.startswith("inodegc"):
            self.timeline.span_across("queued", inode.ino, end - (now_ns - inode.queued_ns), start_ns)
