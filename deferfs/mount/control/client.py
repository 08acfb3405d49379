"""The command line's end of the control socket."""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from dataclasses import dataclass
from typing import Any, Final

from deferfs.contract.answers import Outcome
from deferfs.contract.replies import Done, Refused, decode_reply
from deferfs.contract.requests import Answer, GetIdentity, GetOutcome, GetStatistics, Query, encode_request
from deferfs.contract.statistics import Statistics
from deferfs.device.identity import Identity, identity_of
from deferfs.errors import ControlError
from deferfs.mount.control.paths import LINE_BYTES_MAX, control_paths
from deferfs.mount.host import mountinfo

_UCRED: Final = struct.Struct("3i")
ANSWER_SECONDS_MAX: Final = 600.0
"""A sync of a large, slow image may take minutes; a daemon that is stuck should not hold the shell for ever."""


IDENTITY_SECONDS_MAX: Final = 3.0
"""A daemon that is stopped must not hang a question about another image."""


class NoDaemonError(ControlError):
    """Nobody listens on the control socket."""


@dataclass(frozen=True, slots=True)
class Daemon:
    """The daemon behind a mount: `pid` as the kernel knows it (SO_PEERCRED)."""

    mount: mountinfo.Mount
    pid: int


def find_mount(path: str) -> mountinfo.Mount:
    """The deferfs mount that `path` is in (or is the image of); ControlError when there is none."""
    mount = mountinfo.find_deferfs(path) or find_image(path)
    if mount is None:
        hidden = mountinfo.hidden_deferfs(path)
        if hidden is not None:
            raise ControlError(f"{path}: {hidden.fstype} is mounted over the deferfs here; unmount that first")
        try:
            os.lstat(path)
        except FileNotFoundError:
            raise ControlError(f"{path}: no such file or directory") from None
        except OSError:
            pass
        raise ControlError(f"{path}: no deferfs is mounted here; deferfs mount IMAGE DIR mounts one")
    return mount


def ask(mount: mountinfo.Mount, request: Query[Answer]) -> Answer:
    """Send a request to the daemon of `mount` and return its answer. ControlError when it refuses, cannot be asked, or
    answers what this program cannot read: it may be older, or newer."""
    return request.read(ask_untyped(mount, request), mount.mountpoint)


def ask_untyped(mount: mountinfo.Mount, request: Query[Any]) -> Any:
    """As `ask`, but the answer as the daemon has sent it, whatever its version."""
    with _connect(mount) as client:
        return _converse(client, mount, request)


def ask_within(mount: mountinfo.Mount, request: Query[Answer], seconds: float, *, pid: int | None = None) -> Answer:
    """As `ask`, of a daemon that may not answer for so long, and that is the process `pid`: the device number of a
    mount that has gone may be another's."""
    with _connect(mount) as client:
        if pid is not None and _peer(client)[0] != pid:
            raise NoDaemonError(f"{mount.mountpoint}: its daemon has ended")
        client.settimeout(seconds)
        return request.read(_converse(client, mount, request), mount.mountpoint)


def _converse(client: socket.socket, mount: mountinfo.Mount, request: Query[Any]) -> Any:
    try:
        client.sendall(encode_request(request))
    except OSError as error:
        raise ControlError(f"{mount.mountpoint}: the daemon could not be asked: {error}") from error
    reply = decode_reply(_read_line(client, mount), mount.mountpoint)
    if isinstance(reply, Refused):
        raise ControlError(f"{mount.mountpoint}: {reply.error}")
    return reply.result


def statistics(mount: mountinfo.Mount) -> Statistics:
    """What the daemon of `mount` says about itself. ControlError also when it speaks another version of that."""
    return ask(mount, GetStatistics())


def find_daemon(mount: mountinfo.Mount) -> Daemon:
    """Who serves `mount`. NoDaemonError when nobody answers."""
    with _connect(mount) as client:
        return Daemon(mount, _peer(client)[0])


def has_died(mount: mountinfo.Mount) -> bool:
    """Whether nothing listens behind `mount`. A daemon that this user may not ask lives, for all that is known."""
    try:
        find_daemon(mount)
    except NoDaemonError:
        return True
    except ControlError:
        pass
    return False


class Ending:
    """A daemon that has been asked to tell, over this one connection, what became of its image: the device number of
    the mount may be another's when it does."""

    def __init__(self, mount: mountinfo.Mount) -> None:
        """NoDaemonError when no daemon answers."""
        self._mountpoint = mount.mountpoint
        self._socket = _connect(mount)
        self.pid = _peer(self._socket)[0]
        """0 when it is in a pid namespace that this process does not see."""
        self._process = os.pidfd_open(self.pid) if self.pid else -1
        self._request: Final = GetOutcome()
        self._socket.sendall(encode_request(self._request))
        self._socket.setblocking(False)
        self._answer = bytearray()

    def wait(self, seconds: float) -> bool:
        """Whether the daemon has answered, or ended, within so long."""
        deadline = time.monotonic() + seconds
        while self._socket.fileno() >= 0:
            if not _poll(self._socket.fileno(), deadline):
                return False
            try:
                data = self._socket.recv(1 << 16)
            except ConnectionError:
                data = b""  # it ended
            self._answer += data
            if not data or data.endswith(b"\n"):
                self._socket.close()
        return self._process < 0 or _poll(self._process, deadline)

    def outcome(self) -> Outcome | None:
        """What it has told; None when it ended without, or is so old that it does not know the question."""
        if not self._answer.endswith(b"\n"):
            return None
        reply = decode_reply(bytes(self._answer), self._mountpoint)
        return self._request.read(reply.result, self._mountpoint) if isinstance(reply, Done) else None

    def close(self) -> None:
        """Let go of it."""
        self._socket.close()
        if self._process >= 0:
            os.close(self._process)


def _poll(fd: int, deadline: float) -> bool:
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(max(0.0, deadline - time.monotonic()) * 1000))


def image_of(mount: mountinfo.Mount) -> Identity | None:
    """Which image the daemon of `mount` has open; None when that cannot be asked."""
    try:
        found = ask_within(mount, GetIdentity(), IDENTITY_SECONDS_MAX)
    except (ControlError, OSError):
        return None
    return Identity(found.device, found.inode)


def find_image(path: str) -> mountinfo.Mount | None:
    """Where the image at `path` is mounted in this namespace, whatever its name was then; else None."""
    try:
        wanted = identity_of(path)
    except OSError:
        return None
    name = os.path.realpath(path)
    for mount in mountinfo.read():
        if mount.is_deferfs:
            image = image_of(mount)
            if image == wanted or (image is None and mount.source == name):
                return mount
    return None


def _peer(client: socket.socket) -> tuple[int, int]:
    """Process and user that listen at the other end, as the kernel knows them."""
    pid, uid, _ = _UCRED.unpack(client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return pid, uid


def _connect(mount: mountinfo.Mount) -> socket.socket:
    forbidden = False
    for path in control_paths(mount.device, mount.uid):
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        client.settimeout(ANSWER_SECONDS_MAX)
        try:
            client.connect(path)
        except OSError as error:
            forbidden = forbidden or isinstance(error, PermissionError)
            client.close()
            continue
        if _peer(client)[1] == mount.uid:
            return client
        client.close()  # somebody else has put a socket there
    if forbidden:
        raise ControlError(f"{mount.mountpoint}: only the user who mounted it may control it")
    raise NoDaemonError(
        f"{mount.mountpoint}: its daemon does not answer; if it has died, "
        f"detach the mount: deferfs umount {mount.mountpoint}"
    )


def _read_line(client: socket.socket, mount: mountinfo.Mount) -> bytes:
    line = bytearray()
    try:
        while not line.endswith(b"\n") and len(line) < LINE_BYTES_MAX:
            data = client.recv(1 << 16)
            if not data:
                break
            line += data
    except OSError as error:
        raise ControlError(f"{mount.mountpoint}: the daemon did not answer: {error}") from error
    if not line.endswith(b"\n"):
        raise ControlError(f"{mount.mountpoint}: the daemon hung up without an answer; see its log")
    return bytes(line)
