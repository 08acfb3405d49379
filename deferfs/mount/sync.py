"""Making a mounted filesystem durable from outside."""

from __future__ import annotations

import os

from deferfs.errors import ControlError
from deferfs.mount import control_client, syscalls


def sync(path: str) -> None:
    """Durable when this returns: everything written to the deferfs that `path` is in before the call.

    First the kernel hands its dirty pages to the daemon, then the daemon commits. ControlError when it cannot.
    """
    mount = control_client.find_mount(path)
    control_client.find_daemon(mount)  # without a daemon, the next call could hang
    try:
        fd = os.open(mount.mountpoint, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            syscalls.syncfs(fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise ControlError(f"{mount.mountpoint}: {error.strerror}") from error
    control_client.ask(mount, "sync")
