"""What a daemon does at a signal: end, tell what goes on, or nothing."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterable
from typing import Final, Protocol

import trio

_log: Final = logging.getLogger(__name__)
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
"""To be held back (SIG_BLOCK) from before the mount until `handle_signals` runs, or they would leave a dead mount."""


class Ending(Protocol):
    """The way down (`SelfUnmount`)."""

    async def run(self) -> None:
        """Go it."""

    def hurry(self) -> None:
        """Wait for the users of the mount no longer."""


async def handle_signals(ending: Ending, report: Callable[[], Iterable[str]]) -> None:
    """Until cancelled: SIGINT and SIGTERM run `ending`, and once more hurry it; SIGUSR1 puts the lines of `report` into
    the log. SIGHUP changes nothing: the terminal has gone; a filesystem stays. In the main thread only."""
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
                    _log.info("asked to end by %s", signal.Signals(number).name)
                    nursery.start_soon(ending.run)
