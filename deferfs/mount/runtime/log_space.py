"""What one operation holds of the log over its retries, and how a circle of such waits is broken.

An operation that holds a grant and lacks memory reclaims it itself. Inline, that runs inactivations, which need log
space in turn: if the log has none to give but what the operation and others like it hold, all of them would wait for
ever. The journal notices (`Journal.circular`), one of the inner waits ends in a CircularWaitError, and its
inactivation is left to inodegc.

**Invariant:** the grant is granted, and the lock class `log_space` held, exactly while `_token` is set.
"""

from __future__ import annotations

import errno
import logging
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING

from deferfs.errors import FsError
from deferfs.reclaim.lockdep import LOG_SPACE, Held

if TYPE_CHECKING:
    from deferfs.mount.runtime.runtime import Runtime
    from deferfs.store.journal import Grant

log = logging.getLogger(__name__)
_granted: ContextVar[Grant | None] = ContextVar("deferfs_granted", default=None)
"""The innermost grant that the running task holds."""


class CircularWaitError(Exception):
    """A wait for log space that waits for the waiter itself."""


class Reservation:
    """The log space of one operation."""

    __slots__ = ("_runtime", "_token", "grant")

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._token: tuple[Token[Grant | None], Token[Held | None]] | None = None
        self.grant: Grant | None = None

    async def reserve(self, credits: int) -> bool:
        """Wait in order of arrival for `credits` blocks of the log; whether it had to wait at all.

        FsError(ENOSPC) when the log is too small for ever, FsError(EROFS) when the journal has been aborted.
        """
        runtime = self._runtime
        journal = runtime.store.journal
        self.give_up()
        if credits > journal.transaction_blocks_max:
            raise FsError(errno.ENOSPC, f"an operation of {credits} blocks does not fit into the log")
        runtime.checker.might_need("log")
        self.grant = journal.ask(credits, _granted.get())
        runtime.background.serve_grants()
        waits = not self.grant.granted
        if waits:
            runtime.checker.might_wait("log")
            with runtime.waits.measure("log"):
                await runtime.background.wait_granted(self.grant)
        self._token = _granted.set(self.grant), runtime.checker.lockdep.hold(LOG_SPACE, "log reservation")
        return waits

    def give_up(self) -> None:
        """Refund what is left."""
        if self._token is not None:
            granted, held = self._token
            self._token = None
            self._runtime.checker.lockdep.release(held)
            _granted.reset(granted)
        if self.grant is not None:
            self._runtime.store.journal.give_up(self.grant)
            self.grant = None


class CircleBreaker:
    """Ends waits that can never end. `broken_total` counts them."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.broken_total = 0

    def look(self) -> Grant | None:
        """A waiter that has to be told; None when every wait can end."""
        journal = self._runtime.store.journal
        grant = journal.circular()
        if grant is None:
            return None
        journal.refuse(grant)
        if not self.broken_total:
            log.warning(
                "an inactivation waited for log space that the operation around it holds: left to inodegc; "
                "deferfs ctl lockdep=report tells more"
            )
        self.broken_total += 1
        return grant
