"""Signal handling of the daemon: SIGINT, SIGTERM, SIGHUP, SIGUSR1."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterable
from typing import Final, Protocol

import trio

_log: Final = logging.getLogger(__name__)
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
"""To be blocked from before the mount until `handle_signals` runs: by default they would leave a dead mount."""


class Ending(Protocol):
    """The shutdown (`SelfUnmount`)."""

    async def run(self) -> None:
        """Unmount, and return when done."""

    def hurry(self) -> None:
        """Stop waiting for processes that use the mount."""


async def handle_signals(ending: Ending, report: Callable[[], Iterable[str]]) -> None:
    """Until cancelled: SIGINT and SIGTERM run `ending`, a second one hurries it; SIGUSR1 logs the lines of `report`.
    SIGHUP is ignored: a filesystem outlives its terminal. In the main thread only."""
    begun = False
    async with trio.open_nursery() as nursery:
        with trio.open_signal_receiver(*SIGNALS) as signals:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            async for number in signals:
                if number == signal.SIGUSR1:
                    for line in report():
                        _log.info("%s", line)
                elif number == signal.SIGHUP:
                    continue
                elif begun:
                    ending.hurry()
                else:
                    begun = True
                    _log.info("told to end by %s", signal.Signals(number).name)
                    nursery.start_soon(ending.run)
