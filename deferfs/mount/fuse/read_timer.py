"""A way out of a read that has nothing to read.

The FUSE descriptor says that a request is there; before it is read, the kernel may take the request back, because its
caller was stopped or killed. libfuse then reads again, and sleeps until the next request comes, with the whole event
loop. A signal ends that sleep: the read fails with EINTR, which pyfuse3 takes for a reason to wait for the descriptor
again.

**Invariant:** the timer is set whenever a reader is about to read, and rings once at most after the last request.
"""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Final

READ_SECONDS_MAX: Final = 0.1
"""How long the event loop may hang in such a read."""


class ReadTimer:
    """Rings while the block runs, in the main thread only."""

    def __enter__(self) -> ReadTimer:
        self._before = signal.signal(signal.SIGALRM, _rung)
        signal.siginterrupt(signal.SIGALRM, True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._before)

    @staticmethod
    def start() -> None:
        """A read begins; the timer of the one before is set anew."""
        signal.setitimer(signal.ITIMER_REAL, READ_SECONDS_MAX)


def _rung(number: int, frame: FrameType | None) -> None:
    """That it interrupts the read is all."""
