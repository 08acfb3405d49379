"""The command line's end of the control socket."""

from __future__ import annotations

import json
import os
import socket
import struct
from dataclasses import dataclass
from typing import Any, Final

from deferfs.errors import ControlError
from deferfs.mount import mountinfo
from deferfs.mount.control_path import LINE_BYTES_MAX, control_paths

_UCRED: Final = struct.Struct("3i")
ANSWER_SECONDS_MAX: Final = 600.0
"""A sync of a large, slow image may take minutes; a daemon that is stuck should not hold the shell for ever."""


class NoDaemonError(ControlError):
    """Nobody listens on the control socket."""


@dataclass(frozen=True, slots=True)
class Daemon:
    """The daemon behind a mount: `pid` as the kernel knows it (SO_PEERCRED)."""

    mount: mountinfo.Mount
    pid: int


def find_mount(path: str) -> mountinfo.Mount:
    """The deferfs mount that `path` is in (or is the image of); ControlError when there is none."""
    mount = mountinfo.find_deferfs(path)
    if mount is None:
        try:
            os.lstat(path)
        except FileNotFoundError:
            raise ControlError(f"{path}: no such file or directory") from None
        except OSError:
            pass
        raise ControlError(f"{path}: no deferfs is mounted here; deferfs mount IMAGE DIR mounts one")
    return mount


def ask(mount: mountinfo.Mount, command: str, **arguments: str) -> Any:
    """Send one request to the daemon of `mount` and return its result. ControlError when it refuses."""
    with _connect(mount) as client:
        client.sendall(json.dumps({"command": command, **arguments}).encode() + b"\n")
        line = _read_line(client, mount)
    answer = json.loads(line)
    if not answer["ok"]:
        raise ControlError(f"{mount.mountpoint}: {answer['error']}")
    return answer["result"]


def find_daemon(mount: mountinfo.Mount) -> Daemon:
    """Who serves `mount`. NoDaemonError when nobody answers."""
    with _connect(mount) as client:
        return Daemon(mount, _peer(client)[0])


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
