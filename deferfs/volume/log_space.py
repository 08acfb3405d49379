"""The log space that one operation holds over its retries, and how a circular wait for it is broken.

An operation that holds a grant and lacks memory reclaims it itself. Under `inline`, that runs inactivations, which need
log space in turn: if the operation and others like it hold all of the log, they deadlock. The journal detects it
(`Journal.circular`), one of the inner waits ends in a CircularWaitError, and its inactivation is left to inodegc.

**Invariant:** the grant is granted, and the lock class `log_space` held, exactly while `_token` is set.
"""

from __future__ import annotations

import errno
import logging
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING

from deferfs.errors import FsError
from deferfs.reclaim.lockdep import LOG_SPACE, Held
from deferfs.store.transaction import Grant
from deferfs.volume.waits import Granted, Task

if TYPE_CHECKING:
    from deferfs.volume.engine import Engine

log = logging.getLogger(__name__)
_granted: ContextVar[Grant | None] = ContextVar("deferfs_granted", default=None)
"""The innermost grant that the running task holds."""


class CircularWaitError(Exception):
    """This wait for log space depends, directly or indirectly, on the waiter itself."""


class Reservation:
    """The log space of one operation."""

    __slots__ = ("_engine", "_token", "grant")

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._token: tuple[Token[Grant | None], Token[Held | None]] | None = None
        self.grant: Grant | None = None

    def reserve(self, credits: int) -> Task[bool]:
        """Wait in order of arrival for `credits` blocks of the log. Returns whether it had to wait.

        FsError(ENOSPC) when the whole log is too small, FsError(EROFS) when the journal has been aborted,
        CircularWaitError when the wait could never end.
        """
        engine = self._engine
        journal = engine.store.journal
        self.give_up()
        if credits > journal.alone_blocks_max:
            raise FsError(errno.ENOSPC, f"an operation of {credits} blocks does not fit into the log")
        engine.checker.might_need("log")
        grant = self.grant = journal.ask(credits, _granted.get())
        engine.log_space.serve()
        waits = not grant.granted
        if waits:
            engine.checker.might_wait("log")
            with engine.measure("log"):
                yield Granted(journal, grant)
            if grant.refused:
                raise CircularWaitError
            if not grant.granted:
                raise FsError(errno.EROFS)
        self._token = _granted.set(grant), engine.checker.lockdep.hold(LOG_SPACE, "log reservation")
        return waits

    def give_up(self) -> None:
        """Return the unused log space."""
        if self._token is not None:
            granted, held = self._token
            self._token = None
            self._engine.checker.lockdep.release(held)
            _granted.reset(granted)
        if self.grant is not None:
            self._engine.store.journal.give_up(self.grant)
            self.grant = None


class LogSpace:
    """Wakes operations that wait for log space, and breaks circular waits; `broken_total` counts the latter."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.broken_total = 0

    def serve(self) -> None:
        """Grant log space in order of arrival and wake the waiters: to be called when some may have become free."""
        journal = self._engine.store.journal
        for grant in journal.serve():
            grant.wake()
        while (refused := journal.circular()) is not None:
            journal.refuse(refused)
            self._count_broken()
            refused.wake()

    def _count_broken(self) -> None:
        if not self.broken_total:
            log.warning(
                "an inactivation waited for log space that the operation around it holds: left to inodegc; "
                "see deferfs ctl DIR lockdep=report"
            )
        self.broken_total += 1
