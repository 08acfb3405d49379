"""The path of a mount's control socket: derived from the mount table alone, without touching the mount."""

from __future__ import annotations

import os
import stat
from typing import Final

from deferfs.errors import EnvironmentProblem

_SOCKET_PATH_BYTES_MAX: Final = 107
"""sun_path of unix(7), without its terminator."""
LINE_BYTES_MAX: Final = 1 << 20
"""A request or an answer is one line of JSON; statistics take some 4 KiB."""


def control_directories(uid: int) -> list[str]:
    """Directories for the control sockets of user `uid`, preferred ones first."""
    if uid == 0:
        return ["/run/deferfs"]
    found = [f"/run/user/{uid}/deferfs", f"/tmp/deferfs-{uid}"]
    own = os.environ.get("XDG_RUNTIME_DIR")
    if own and uid == os.geteuid():
        found.insert(0, os.path.join(own, "deferfs"))
    return found


def control_paths(device: str, uid: int) -> list[str]:
    """Possible paths of the socket of the filesystem with this "major:minor", mounted by `uid`."""
    return [os.path.join(directory, f"{device}.sock") for directory in control_directories(uid)]


def make_control_path(device: str) -> str:
    """Create a directory with access for its owner only, and return the path for a new socket in it.
    EnvironmentProblem when that is not possible."""
    problem = ""
    for path in control_directories(os.geteuid()):
        if len(os.fsencode(os.path.join(path, f"{device}.sock"))) > _SOCKET_PATH_BYTES_MAX:
            problem = problem or f"{path}: path too long for the control socket"
            continue
        try:
            os.makedirs(path, mode=0o700, exist_ok=True)
            found = os.lstat(path)
        except OSError as error:
            problem = problem or f"{path}: cannot create the control socket: {error.strerror}"
            continue
        if found.st_uid != os.geteuid() or not stat.S_ISDIR(found.st_mode):
            problem = problem or f"{path}: does not belong to this user; remove it"
            continue
        if found.st_mode & 0o077:
            os.chmod(path, 0o700)
        return os.path.join(path, f"{device}.sock")
    raise EnvironmentProblem(problem)
