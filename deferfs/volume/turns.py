"""When a transaction of cleanup begins, and when others run before the next one: the pace, and the end of a turn.

**Invariants**
- A transaction in the background, where no operation waits for the cleanup, waits for the pace; not while cleanup is
  waited for, while memory or space is short, nor once inodegc is stopped.
- A turn ends when one more transaction, as long as the last one, would make it longer than `turn_ns`, or than
  WAITED_TURNS times that where the cleanup is waited for; in the background also when requests are queued, or a commit
  is under way. Others run then, for GC_PASSES_MAX passes at most: cleanup goes on however many requests come.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from deferfs.limits import GC_PACE_LOOK_SECONDS, GC_PASSES_MAX, TURN_NS, WAITED_TURNS
from deferfs.reclaim.pace import Pace
from deferfs.volume.waits import Paced, Reschedule, Task

if TYPE_CHECKING:
    from deferfs.volume.engine import Engine


def _no_time() -> int:
    return 0


def _none_queued() -> bool:
    return False


class TurnTimer:
    """Tells when a turn is to end: when one more piece of work, as long as the last one, would make it longer than
    `Turns.turn_ns`."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self.restart()

    def restart(self) -> None:
        """A turn begins."""
        self._start_ns = self._last_ns = self._turns.now_ns()

    def over(self, *, waited: bool) -> bool:
        """To be called after each piece. `waited`: an operation or a barrier waits for the work."""
        now_ns = self._turns.now_ns()
        last_ns, self._last_ns = now_ns - self._last_ns, now_ns
        turn_ns = self._turns.turn_ns * WAITED_TURNS if waited else self._turns.turn_ns
        return now_ns - self._start_ns + last_ns > turn_ns


class Turns:
    """Of the transactions of one volume, in whichever task they run.

    `requests_queued` tells whether there are requests that have not been read; `pace` counts by its own clock. A driver
    may replace them.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._cleanup = engine.cleanup
        self._journal = engine.store.journal
        self.pace = Pace(_no_time)
        self.requests_queued: Callable[[], bool] = _none_queued
        self.turn_ns = TURN_NS
        """How long a turn lasts, in ns of the engine's clock; -1 for one transaction."""
        self._timer = TurnTimer(self)

    def now_ns(self) -> int:
        """By the engine's clock."""
        return self._engine.now_ns()

    # --- the pace ---
    def may_begin(self) -> bool:
        """Whether the next transaction in the background need not wait for the pace any longer."""
        return not self.pace.wait_ns() or self._cleanup.wanted() or self._cleanup.stopped

    def keep_pace(self) -> Task[None]:
        """Before a transaction in the background: wait as the pace demands."""
        while True:
            wait = Paced(self, min(self.pace.wait_ns() / 1e9, GC_PACE_LOOK_SECONDS))
            yield wait
            if wait.over():
                return

    # --- turns ---
    def step_done(self, *, background: bool, last: bool) -> Task[None]:
        """After a transaction of an inactivation: others may run, and the next one keeps the pace. What follows the
        `last` is the first one of another inode, which keeps it by itself."""
        if background:
            self.pace.spend()
        yield from self.end(background=background)
        if background and not last:
            yield from self.keep_pace()

    def end(self, *, background: bool) -> Task[None]:
        """Between two transactions: let others run, if the turn is to end."""
        if not self._ends(background=background):
            return
        for _ in range(GC_PASSES_MAX):
            yield Reschedule()
            if not self.requests_queued():
                break
        self._timer.restart()

    def _ends(self, *, background: bool) -> bool:
        if background and (self.requests_queued() or self._journal.committing is not None):
            return True
        return self._timer.over(waited=not background)
