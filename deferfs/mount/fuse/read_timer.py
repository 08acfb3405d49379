"""Workaround for a hang of libfuse when a request is interrupted between poll() and read().

When poll reports a request, the kernel may still withdraw it before it is read, because its caller was stopped or
killed. libfuse then reads again, and blocks until the next request comes, with the whole event loop. A signal ends that
read with EINTR, after which pyfuse3 waits for the descriptor again.

**Invariant:** the timer is armed whenever a reader is about to read, and fires at most once after the last request.
"""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Final

READ_SECONDS_MAX: Final = 0.1
"""How long the event loop may block in such a read."""


class ReadTimer:
    """Fires while the `with` block runs. In the main thread only."""

    def __enter__(self) -> ReadTimer:
        self._before = signal.signal(signal.SIGALRM, _interrupt)
        signal.siginterrupt(signal.SIGALRM, True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._before)

    @staticmethod
    def start() -> None:
        """Arm the timer before a read, replacing the previous one."""
        signal.setitimer(signal.ITIMER_REAL, READ_SECONDS_MAX)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """No-op: the signal only has to cause EINTR."""
