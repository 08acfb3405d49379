"""The daemon takes its own mounts down, because it was asked to end.

**Invariant:** `SelfUnmount.run` returns only when the kernel has let go of the filesystem, or all that the kernel held
back has come and the FUSE loop has been told to end. So whatever goes wrong on the way, the daemon does not live on
deaf, and no write that a program has made is lost.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, TypeVar

import trio

from deferfs.mount.host import syscalls
from deferfs.mount.host.own_mounts import Obstacle
from deferfs.mount.host.users import User, users_of

T = TypeVar("T")
D = TypeVar("D")
_log: Final = logging.getLogger(__name__)

BUSY_SECONDS_MAX: Final = 10.0
"""How long a request to terminate waits for the users of the mount; systemd kills after 90 s."""
BUSY_POLL_SECONDS: Final = 0.25
PATH_SECONDS_MAX: Final = 5.0
"""A path leads through other filesystems, which may not answer: then it is done without."""


class Mounts(Protocol):
    """What a KernelMount is for this."""

    def is_alive(self) -> bool:
        """Whether the kernel still has the filesystem."""

    def open(self) -> int | None:
        """A descriptor of the root, if a path leads to one."""

    def unmount(self) -> list[Obstacle]:
        """Unmount what is not in use; what stays."""

    def detach(self) -> list[Obstacle]:
        """Unmount what no other mount is on; what stays."""

    @property
    def device(self) -> str:
        """The "major:minor"."""


class SelfUnmount:
    """`collect` has the kernel hand over its dirty pages without any path, and waits for them; `end_loop` then ends the
    FUSE loop: who still uses the mount is cut off."""

    def __init__(
        self,
        mounts: Mounts,
        collect: Callable[[], Awaitable[None]],
        end_loop: Callable[[], None],
        find_users: Callable[[str], list[User]] = users_of,
    ) -> None:
        self._mounts = mounts
        self._collect = collect
        self._end_loop = end_loop
        self._find_users = find_users
        self._hurry = trio.Event()
        self._told = ""

    def hurry(self) -> None:
        """Do not wait for the users any longer."""
        self._hurry.set()

    async def run(self) -> None:
        """While processes use a mount wait a while (not after `hurry`), then detach it with all that was written."""
        with trio.move_on_after(BUSY_SECONDS_MAX) as patience:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._cut_short, patience)
                await self._unmount()
                nursery.cancel_scope.cancel()
        if self._mounts.is_alive():
            await self._force()

    async def _cut_short(self, patience: trio.CancelScope) -> None:
        await self._hurry.wait()
        patience.cancel()

    async def _unmount(self) -> None:
        while self._mounts.is_alive():
            obstacles = await _in_thread(self._mounts.unmount, None) or []
            if not self._mounts.is_alive():
                return
            await self._tell(obstacles)
            await trio.sleep(BUSY_POLL_SECONDS)

    async def _tell(self, obstacles: list[Obstacle]) -> None:
        """Each reason once."""
        for obstacle in obstacles:
            if not obstacle.is_busy:
                self._warn(str(obstacle))
        if not obstacles or any(obstacle.is_busy for obstacle in obstacles):
            if self._told.endswith("busy"):
                return
            users = await _in_thread(lambda: self._find_users(self._mounts.device), None) or []
            shown = ", ".join(map(str, users)) or "a hidden process, or another mount namespace"
            self._warn(f"busy: used by {shown}")
            self._told += "busy"

    def _warn(self, text: str) -> None:
        if text not in self._told:
            self._told += f"{text}\n"
            _log.warning("%s", text)

    async def _force(self) -> None:
        """Take the mounts out of the tree, collect the kernel's dirty pages, and cut the users off."""
        fd, left = None, None
        with trio.move_on_after(PATH_SECONDS_MAX):
            fd = await _in_thread(self._mounts.open, None)
        with trio.move_on_after(PATH_SECONDS_MAX):
            left = await _in_thread(self._mounts.detach, None)
        if fd is not None:
            await _in_thread(lambda: _sync_and_close(fd), None)
        if self._mounts.is_alive():
            await self._collect()
        for obstacle in left or []:
            _log.warning("%s; a dead mount stays there", obstacle)
        self._end_loop()


def _sync_and_close(fd: int) -> None:
    """In large pieces, which one file after the other would not do."""
    try:
        syscalls.syncfs(fd)
    finally:
        os.close(fd)


async def _in_thread(function: Callable[[], T], otherwise: D) -> T | D:
    """Its result; `otherwise` when the system refuses. A thread that is stuck on a path is left to itself."""
    try:
        return await trio.to_thread.run_sync(function, abandon_on_cancel=True)
    except OSError as error:
        if error.errno != errno.ENOTCONN:
            _log.warning("on the way down: %s", error)
        return otherwise
