"""The interface of a runtime that the adapter uses."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar

if TYPE_CHECKING:
    from deferfs.mount.runtime.activity import Activity
    from deferfs.mount.runtime.waits import Timings
    from deferfs.reclaim.inode import ActiveReference
    from deferfs.store.plan import Plan
    from deferfs.volume.volume import Volume

P = ParamSpec("P")
T = TypeVar("T")


class Admission(Protocol):
    """Throttles callers that add to a backlog (`runtime.throttle.Admission`)."""

    async def admit(self, pid: int) -> None:
        """Return when thread `pid` may continue. FsError(EINTR) when it is being killed."""


class Filesystem(Protocol):
    """A served volume (`Runtime`). All operations may raise FsError."""

    @property
    def volume(self) -> Volume: ...

    @property
    def requests(self) -> Timings:
        """Durations by kind of request."""

    @property
    def activity(self) -> Activity:
        """The name of the running request or task."""

    @property
    def throttle(self) -> Admission: ...

    def run(
        self, op: Callable[Concatenate[Plan, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, T]:
        """Perform one operation."""

    async def until_done(self, part: Callable[[Plan], bool]) -> None:
        """Repeat an operation until it returns True."""

    async def read(self, ino: int, offset: int, length: int, *, quiet: bool = False) -> bytes:
        """File data; `quiet`: do not update the access time."""

    async def readlink(self, ino: int) -> bytes:
        """The target of a symbolic link."""

    async def write(self, ino: int, offset: int, data: bytes, *, whole: bool = False) -> int:
        """Returns the bytes written, fewer than given only on a full disk."""

    async def sync(self) -> None:
        """Make everything durable."""

    async def fsync(self, ino: int, *, data_only: bool = False) -> None:
        """Make one file durable."""

    async def forget(self, inodes: list[tuple[int, int]], /) -> None:
        """The kernel drops lookups: (inode, count)."""

    async def release(self, reference: ActiveReference) -> None:
        """Release the reference of a closed handle."""

    def note(self, error: BaseException) -> None:
        """Count and log damage."""
