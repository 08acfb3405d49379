"""The kernel's clock for time stamps of files, and a cheaper one for everything else.

Since Linux 6.13 some filesystems (ext4, XFS, btrfs, tmpfs) use the fine clock for a file whose last time stamp has been
read, and no later time stamp of the machine, in any filesystem, may be earlier than that: a floor, see
Documentation/filesystems/multigrain-ts.rst. So the coarse clock of clock_gettime(2) falls behind the kernel's stamps as
soon as some process writes and reads times, and the fine clock is ahead of them. The only clock that agrees with both
is a time stamp made by the kernel: the change time of an unlinked file in memory, updated for this purpose. Before 6.13
that equals the coarse clock.

**Invariant:** a time from `FileClock.now` is not earlier than any time stamp that the kernel has made before, and not
later than any that it makes afterwards, as long as the clock is not set back.
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
"""From <time.h>; Python has no name for it."""
_TICK_NS_MAX: Final = 10_000_000
"""Maximum lag of the coarse clock behind the fine one: a tick at HZ=100."""
log = logging.getLogger(__name__)


def coarse() -> int:
    """The time of the last tick, in ns since the epoch: cheap, and without side effects. For times that are not
    compared with those of files: the journal, ages, lazy access times."""
    return time.clock_gettime_ns(_CLOCK_REALTIME_COARSE)


class FileClock:
    """Time stamps for files. Without memfd_create(2) (e.g. in a sandbox) those of the coarse clock, which is logged
    once."""

    def __init__(self) -> None:
        self._fd = -1
        try:
            self._fd = syscalls.memory_file("deferfs-clock")
            self._read()
        except OSError as error:
            self.close()
            log.warning(
                "the kernel's file clock cannot be read (%s): time stamps may be a few ms older than those of files on "
                "other filesystems that were changed earlier",
                error.strerror,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Use the coarse clock from now on."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def now(self) -> int:
        """A time stamp, in ns since the epoch. Each call may raise the floor of the whole machine: use it only for
        times that are compared with those of other files."""
        return coarse() if self._fd < 0 else self._read()

    def _read(self) -> int:
        os.utime(self._fd)
        return os.fstat(self._fd).st_ctime_ns

    def reach(self, time_ns: int) -> None:
        """Make sure that no later time stamp is earlier than `time_ns`, if that is a recent time of the fine clock.

        utimensat(2) with UTIME_NOW arrives with such a time when the kernel does not keep the times itself, because
        pyfuse3 reads the fine clock for it and does not pass the flag on. Times chosen by a program look the same, and
        both are set as they are.
        """
        if self._fd >= 0 and 0 <= time.time_ns() - time_ns <= _TICK_NS_MAX and self._read() < time_ns:
            self._read()  # this read returns the last tick, and makes the next time stamp one of the fine clock
