"""Log space: what operations hold of it, how they wait for it, and how a circular wait is ended.

An operation that holds a grant and lacks memory reclaims it itself. Inline, that runs inactivations, which need log
space in turn: if the log has none to give but what the operation and others like it hold, all of them would wait for
ever. The journal notices (`Journal.circular`), one of the inner waits ends in a CircularWaitError, and its
inactivation is left to inodegc.

**Invariant:** the grant of a reservation is granted, and the lock class `log_space` held, exactly while its `_token` is
set.
"""

from __future__ import annotations

import errno
import logging
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Protocol

import trio

from deferfs.errors import FsError
from deferfs.reclaim.lockdep import LOG_SPACE, Held

if TYPE_CHECKING:
    from deferfs.mount.runtime.instruments import Instruments
    from deferfs.store.journal import Journal
    from deferfs.store.transaction import Grant

log = logging.getLogger(__name__)
_granted: ContextVar[Grant | None] = ContextVar("deferfs_granted", default=None)
"""The innermost grant that the running task holds."""


class CircularWaitError(Exception):
    """A wait for log space that waits for the waiter itself."""


class LogSource(Protocol):
    """What makes log space free (`Committer`)."""

    def ask(self) -> None:
        """Have a commit and a checkpoint done soon."""


class Grants:
    """The waits for the log space of one journal; `serve` is to be called whenever some may have become free."""

    def __init__(self, journal: Journal, source: LogSource, instruments: Instruments) -> None:
        self.journal = journal
        self.instruments = instruments
        self.circles = CircleBreaker(journal)
        self._source = source
        self._waiting: dict[Grant, trio.Event] = {}

    def serve(self) -> None:
        """Wake those whose log space is there, and those that will never get any."""
        journal = self.journal
        for grant in journal.serve():
            event = self._waiting.pop(grant, None)
            if event is not None:
                event.set()
        if journal.aborted is not None:
            for event in self._waiting.values():
                event.set()
            self._waiting.clear()
        while (refused := self.circles.look()) is not None:
            if refused in self._waiting:
                self._waiting.pop(refused).set()

    async def wait(self, grant: Grant) -> None:
        """Wait in order of arrival until the log space is set aside. EROFS after an abort, CircularWaitError when it
        never will be."""
        event = self._waiting[grant] = trio.Event()
        self._source.ask()
        try:
            if not grant.refused:
                await event.wait()
        finally:
            self._waiting.pop(grant, None)
        if grant.refused:
            raise CircularWaitError
        if not grant.granted:
            raise FsError(errno.EROFS)


class Reservation:
    """The log space of one operation over its retries."""

    __slots__ = ("_grants", "_token", "grant")

    def __init__(self, grants: Grants) -> None:
        self._grants = grants
        self._token: tuple[Token[Grant | None], Token[Held | None]] | None = None
        self.grant: Grant | None = None

    async def reserve(self, credits: int) -> bool:
        """Wait in order of arrival for `credits` blocks of the log; whether it had to wait at all.

        FsError(ENOSPC) when the log is too small for ever, FsError(EROFS) when the journal has been aborted.
        """
        grants = self._grants
        journal, checker = grants.journal, grants.instruments.checker
        self.give_up()
        if credits > journal.transaction_blocks_max:
            raise FsError(errno.ENOSPC, f"an operation of {credits} blocks does not fit into the log")
        checker.might_need("log")
        self.grant = journal.ask(credits, _granted.get())
        grants.serve()
        waits = not self.grant.granted
        if waits:
            checker.might_wait("log")
            with grants.instruments.waits.measure("log"):
                await grants.wait(self.grant)
        self._token = _granted.set(self.grant), checker.lockdep.hold(LOG_SPACE, "log reservation")
        return waits

    def give_up(self) -> None:
        """Refund what is left."""
        if self._token is not None:
            granted, held = self._token
            self._token = None
            self._grants.instruments.checker.lockdep.release(held)
            _granted.reset(granted)
        if self.grant is not None:
            self._grants.journal.give_up(self.grant)
            self.grant = None


class CircleBreaker:
    """Ends waits that can never end. `broken_total` counts them."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.broken_total = 0

    def look(self) -> Grant | None:
        """A waiter that has to be told; None when every wait can end."""
        grant = self._journal.circular()
        if grant is None:
            return None
        self._journal.refuse(grant)
        if not self.broken_total:
            log.warning(
                "an inactivation waited for log space that the operation around it holds: left to inodegc; "
                "deferfs ctl lockdep=report tells more"
            )
        self.broken_total += 1
        return grant
