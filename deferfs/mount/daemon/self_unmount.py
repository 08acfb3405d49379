"""The daemon unmounts itself when it is told to terminate.

**Invariant:** `SelfUnmount.run` returns only when the kernel has released the filesystem, or all dirty pages have been
collected from the kernel and the FUSE loop has been told to end. So whatever fails, the daemon does not stay alive
without serving, and no write of a program is lost.
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
"""How long a request to terminate waits for the processes that use the mount; systemd kills after 90 s."""
BUSY_POLL_SECONDS: Final = 0.25
"""Interval between attempts to unmount."""
PATH_SECONDS_MAX: Final = 5.0
"""Timeout of system calls on paths, which lead through other filesystems that may hang."""


class Mounts(Protocol):
    """The interface of a `KernelMount` used here."""

    def is_alive(self) -> bool:
        """Whether the kernel still has the filesystem."""

    def open(self) -> int | None:
        """A descriptor of the root; None when no path leads to it."""

    def unmount(self) -> list[Obstacle]:
        """Unmount all mounts that are not in use; returns what remains."""

    def detach(self) -> list[Obstacle]:
        """Detach all mounts that have no other mount on them; returns what remains."""

    @property
    def device(self) -> str:
        """The "major:minor"."""


class SelfUnmount:
    """`collect` makes the kernel hand over its dirty pages without a path, and waits for them; `end_loop` then ends the
    FUSE loop, and processes that still use the mount get errors."""

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
        """Stop waiting for processes that use the mount."""
        self._hurry.set()

    async def run(self) -> None:
        """Wait a while for processes that use a mount (unless `hurry` is called), then detach it with all data
        written."""
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
        """Log each reason once."""
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
        """Detach the mounts, collect the kernel's dirty pages, and end the FUSE loop."""
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
    """syncfs writes large runs, which syncing one file after the other would not."""
    try:
        syscalls.syncfs(fd)
    finally:
        os.close(fd)


async def _in_thread(function: Callable[[], T], otherwise: D) -> T | D:
    """Run `function` in a thread; `otherwise` on OSError or timeout. A thread stuck on a path is abandoned."""
    try:
        return await trio.to_thread.run_sync(function, abandon_on_cancel=True)
    except OSError as error:
        if error.errno != errno.ENOTCONN:
            _log.warning("while unmounting: %s", error)
        return otherwise
