"""The clock that the kernel stamps files with, and the cheap one for all else.

Since Linux 6.13 some filesystems (ext4, XFS, btrfs, tmpfs) stamp a file with the fine clock when its last time has been
looked at, and every stamp of the machine after that, of any filesystem, is at least as late: a floor, see
Documentation/filesystems/multigrain-ts.rst. So the coarse clock of clock_gettime(2) lags behind the stamps of the
kernel as soon as some process writes and looks, and the fine one is ahead of them. What agrees with both sides is a
stamp of the kernel itself: the change time of an unlinked file in memory, told to change now. Before 6.13 that is the
coarse clock.

**Invariant:** a time of `FileClock.now` is not earlier than any stamp that the kernel has given before, and not later
than any that it gives afterwards, as long as the clock is not set back.
"""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING, Final, Self

from deferfs.mount.host import syscalls

if TYPE_CHECKING:
    from types import TracebackType

_CLOCK_REALTIME_COARSE: Final = 5
"""Of <time.h>; Python does not name it."""
_TICK_NS_MAX: Final = 10_000_000
"""By so much at most the coarse clock lags behind the fine one (HZ=100)."""
log = logging.getLogger(__name__)


def coarse() -> int:
    """The time of the last tick, in ns since the epoch: cheap, and reading it changes nothing for others. For what is
    not compared with the stamps of files: the journal, ages, access times that are kept in memory."""
    return time.clock_gettime_ns(_CLOCK_REALTIME_COARSE)


class FileClock:
    """Stamps for files. Without memfd_create(2) (in a sandbox, say): the coarse clock, which the log tells once."""

    def __init__(self) -> None:
        self._fd = -1
        try:
            self._fd = syscalls.memory_file("deferfs-clock")
            self._read()
        except OSError as error:
            self.close()
            log.warning(
                "the kernel's file clock cannot be read (%s): while other programs write and look at times, "
                "files may seem a few ms older than what was changed before them",
                error.strerror,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """The coarse clock from now on."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def now(self) -> int:
        """A stamp, in ns since the epoch. Each reading may raise the floor of the whole machine: for what is to be
        compared with the stamps of other files, and nothing else."""
        return coarse() if self._fd < 0 else self._read()

    def _read(self) -> int:
        os.utime(self._fd)
        return os.fstat(self._fd).st_ctime_ns

    def reach(self, time_ns: int) -> None:
        """Have no later stamp be earlier than `time_ns`, if that is a time of the fine clock that has just passed.

        utimensat(2) with UTIME_NOW reaches us with such a time where the kernel does not keep the times itself: pyfuse3
        reads the fine clock for it, and does not tell. Times that a program chose look the same, and both are set as
        they are.
        """
        if self._fd >= 0 and 0 <= time.time_ns() - time_ns <= _TICK_NS_MAX and self._read() < time_ns:
            self._read()  # that was the last tick; now that it has been looked at, the next is of the fine clock
