"""The daemon's end of the control socket: one line of a request (`deferfs.contract.requests`), one line of a reply
(`deferfs.contract.replies`), then it hangs up.
"""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final, Protocol, assert_never

import trio

from deferfs.contract.answers import ImageIdentity, Outcome
from deferfs.contract.inode_report import InodeReport
from deferfs.contract.replies import Done, Refused, Reply, encode_reply
from deferfs.contract.requests import (
    GetIdentity,
    GetInode,
    GetOutcome,
    GetState,
    GetStatistics,
    Request,
    Set,
    Sync,
    decode_request,
)
from deferfs.contract.statistics import Statistics
from deferfs.errors import DeferfsError, FsError
from deferfs.mount.control.paths import LINE_BYTES_MAX, make_control_path
from deferfs.mount.runtime.pulse import Pulse

_log: Final = logging.getLogger(__name__)
_UCRED: Final = struct.Struct("3i")
"""struct ucred of SO_PEERCRED: pid, uid, gid."""
REQUEST_SECONDS_MAX: Final = 10.0
"""Timeout for the request of a connected client."""
BACKLOG: Final = 16
"""Connections that may wait for accept(2)."""


class Controlled(Protocol):
    """The interface of a mount that the control socket offers."""

    def state(self) -> str:
        """`serving`, or `stopping` once the kernel has released the mount."""

    def identity(self) -> ImageIdentity:
        """The identity of the image."""

    async def outcome(self) -> Outcome:
        """Wait until the daemon has closed the image; returns its final state."""

    def statistics(self) -> Statistics:
        """Current statistics."""

    async def explain(self, ino: int) -> InodeReport:
        """Everything known about one inode, and why it has not been freed."""

    async def sync(self) -> None:
        """Make everything done so far durable. FsError when that fails."""

    async def set(self, key: str, value: str) -> str:
        """Change a setting; returns its new value as text. ControlError or FsError when refused."""


class ControlServer:
    """Answers on the socket of one mount. `device` is the "major:minor" of the mounted filesystem."""

    def __init__(self, controlled: Controlled, device: str) -> None:
        self._controlled = controlled
        self._device = device
        self._answering = 0
        self._idle = Pulse()

    async def idle(self) -> None:
        """Return when no client is waiting for an answer."""
        while self._answering:
            await self._idle.wait()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[trio.SocketListener]:
        """The listening socket; the file is removed at the end.

        The kernel gives a device number to one mount at a time, but can reuse it from the unmount on, while our image
        is still being closed. So a file found at the path may be a leftover, and one found at the end another daemon's.
        """
        path = make_control_path(self._device)
        with trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            with _alone_in(path):
                _unlink(path)
                await listener.bind(path)
                own = os.open(path, os.O_PATH | os.O_NOFOLLOW)
            try:
                os.chmod(path, 0o600)
                listener.listen(BACKLOG)
                yield trio.SocketListener(listener)
            finally:
                with _alone_in(path):
                    _unlink(path, only=own)
                os.close(own)

    async def serve(self, listener: trio.SocketListener) -> None:
        """Answer requests until cancelled."""
        await trio.serve_listeners(self._handle, [listener])

    async def _handle(self, stream: trio.SocketStream) -> None:
        """Serve one client. Its errors never affect the mount."""
        try:
            async with stream:
                if not _is_owner(stream):
                    return
                with trio.fail_after(REQUEST_SECONDS_MAX):
                    line = await _read_line(stream)
                self._answering += 1
                try:
                    await stream.send_all(encode_reply(await self._answer(line)))
                finally:
                    self._answering -= 1
                    self._idle.beat()
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            pass  # the client has disconnected
        except Exception:
            _log.exception("control request failed")

    async def _answer(self, line: bytes) -> Reply:
        try:
            return Done(result=await self._perform(decode_request(line)))
        except (DeferfsError, FsError, ValueError) as error:
            return Refused(error=str(error))
        except Exception as error:
            _log.exception("control request failed")
            return Refused(error=f"internal error: {type(error).__name__}: {error}")

    async def _perform(self, request: Request) -> object:
        match request:
            case GetState():
                return self._controlled.state()
            case GetIdentity():
                return self._controlled.identity()
            case GetOutcome():
                return await self._controlled.outcome()
            case GetStatistics():
                return self._controlled.statistics()
            case GetInode(number=number):
                return await self._controlled.explain(int(number))
            case Sync():
                await self._controlled.sync()
                return None
            case Set(key=key, value=value):
                return await self._controlled.set(key, value)
        assert_never(request)


def _is_owner(stream: trio.SocketStream) -> bool:
    """Whether the client is the daemon's user or root; the permissions of the directory are the first check."""
    size = _UCRED.size
    credentials = stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    uid: int = _UCRED.unpack(credentials)[1]
    return uid in (0, os.geteuid())


async def _read_line(stream: trio.SocketStream) -> bytes:
    line = bytearray()
    while not line.endswith(b"\n") and len(line) < LINE_BYTES_MAX:
        data = await stream.receive_some()
        if not data:
            break
        line += data
    return bytes(line)


@contextmanager
def _alone_in(path: str) -> Iterator[None]:
    """Lock the directory of `path` against other daemons, for an instant: between a look at the file and its removal
    no other daemon replaces it."""
    directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


def _unlink(path: str, *, only: int | None = None) -> None:
    """Remove the file; with `only`, not if it is another one than this open file. An open file keeps its inode number:
    that of a removed one may be given to the file which replaces it."""
    try:
        if only is None or os.path.samestat(os.lstat(path), os.fstat(only)):
            os.unlink(path)
    except FileNotFoundError:
        pass
