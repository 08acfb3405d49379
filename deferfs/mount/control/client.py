"""The client side of the control socket, used by the command line."""

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
"""A sync of a large, slow image may take minutes, but a stuck daemon must not block the shell for ever."""


IDENTITY_SECONDS_MAX: Final = 3.0
"""A stopped daemon must not delay a query about another image for longer."""


class NoDaemonError(ControlError):
    """No process listens on the control socket."""


@dataclass(frozen=True, slots=True)
class Daemon:
    """The daemon behind a mount: `pid` from SO_PEERCRED."""

    mount: mountinfo.Mount
    pid: int


def find_mount(path: str) -> mountinfo.Mount:
    """The deferfs mount that contains `path`, or whose image it is. ControlError when there is none."""
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
    """As `ask`, with a timeout in seconds, and only if the daemon is process `pid`: the device number of an unmounted
    filesystem may have been reused."""
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
    """Statistics from the daemon of `mount`. ControlError also when it speaks another version of the format."""
    return ask(mount, GetStatistics())


def find_daemon(mount: mountinfo.Mount) -> Daemon:
    """The daemon that serves `mount`. NoDaemonError when no process listens."""
    with _connect(mount) as client:
        return Daemon(mount, _peer(client)[0])


def has_died(mount: mountinfo.Mount) -> bool:
    """Whether no process listens behind `mount`. A daemon that this user may not connect to counts as alive."""
    try:
        find_daemon(mount)
    except NoDaemonError:
        return True
    except ControlError:
        pass
    return False


class Ending:
    """A connection over which the daemon will report the final state of its image. It is kept open over the unmount,
    as the device number may be reused afterwards."""

    def __init__(self, mount: mountinfo.Mount) -> None:
        """NoDaemonError when no daemon answers."""
        self._mountpoint = mount.mountpoint
        self._socket = _connect(mount)
        self.pid = _peer(self._socket)[0]
        """0 when the daemon is in a pid namespace that this process cannot see."""
        self._process = os.pidfd_open(self.pid) if self.pid else -1
        self._request: Final = GetOutcome()
        self._socket.sendall(encode_request(self._request))
        self._socket.setblocking(False)
        self._answer = bytearray()

    def wait(self, seconds: float) -> bool:
        """Wait up to `seconds`; whether the daemon has answered or ended."""
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
        """Close the connection."""
        self._socket.close()
        if self._process >= 0:
            os.close(self._process)


def _poll(fd: int, deadline: float) -> bool:
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(max(0.0, deadline - time.monotonic()) * 1000))


def image_of(mount: mountinfo.Mount) -> Identity | None:
    """The image that the daemon of `mount` has open; None when the daemon cannot be asked."""
    try:
        found = ask_within(mount, GetIdentity(), IDENTITY_SECONDS_MAX)
    except (ControlError, OSError):
        return None
    return Identity(found.device, found.inode)


def find_image(path: str) -> mountinfo.Mount | None:
    """The mount of the image at `path` in this namespace, even if mounted by another name; else None."""
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
    """Process and user at the other end, from SO_PEERCRED."""
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
        client.close()  # the socket belongs to another user
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
        raise ControlError(f"{mount.mountpoint}: the daemon closed the connection without an answer; see its log")
    return bytes(line)
