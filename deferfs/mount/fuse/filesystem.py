"""What requests are asked of: the part of a runtime that the adapter uses."""

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
    """Holds back callers that add to a backlog (`Throttle`)."""

    async def admit(self, pid: int) -> None:
        """Return when thread `pid` may go on. FsError(EINTR) when it is being killed."""


class Filesystem(Protocol):
    """A volume that is served (`Runtime`). FsError from whatever performs operations."""

    @property
    def volume(self) -> Volume: ...

    @property
    def requests(self) -> Timings:
        """Times by kind."""

    @property
    def activity(self) -> Activity:
        """Whose turn it is."""

    @property
    def throttle(self) -> Admission: ...

    def run(
        self, op: Callable[Concatenate[Plan, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, T]:
        """Perform one operation."""

    async def read(self, ino: int, offset: int, length: int, *, quiet: bool = False) -> bytes:
        """File data; `quiet`: the access time stays as it is."""

    async def readlink(self, ino: int) -> bytes:
        """The target of a symbolic link."""

    async def write(self, ino: int, offset: int, data: bytes, *, whole: bool = False) -> int:
        """Bytes written, fewer only on a full disk."""

    async def sync(self) -> None:
        """Make everything durable."""

    async def fsync(self, ino: int, *, data_only: bool = False) -> None:
        """Make one file durable."""

    async def forget(self, inodes: list[tuple[int, int]], /) -> None:
        """The kernel takes lookups back: (inode, how many)."""

    async def release(self, reference: ActiveReference) -> None:
        """A handle is closed."""

    def note(self, error: BaseException) -> None:
        """Count and log damage."""
