"""Making a mounted filesystem durable from outside."""

from __future__ import annotations

import os

from deferfs.contract.requests import Sync
from deferfs.errors import ControlError
from deferfs.mount.control import client
from deferfs.mount.host import mountinfo, syscalls
from deferfs.mount.host.own_mounts import mounts_of, open_first


def sync(path: str) -> None:
    """Make everything durable that was written before the call to the deferfs that contains `path`.

    First the kernel writes its dirty pages back to the daemon, then the daemon commits. ControlError when it cannot, or
    when an earlier writeback has failed, which the kernel reports once and not to the process that wrote.
    """
    mount = client.find_mount(path)
    client.find_daemon(mount)  # without a daemon, the next call could hang
    fd = open_first(mounts_of(mount.device))
    if fd is None:
        hidden = mountinfo.hidden_deferfs(mount.mountpoint)
        over = "another filesystem" if hidden is None else hidden.fstype
        raise ControlError(f"{mount.mountpoint}: {over} is mounted over it; unmount that first")
    failure = None
    try:
        syscalls.syncfs(fd)
    except OSError as error:
        failure = error
    finally:
        os.close(fd)
    client.ask(mount, Sync())
    if failure is not None:
        raise ControlError(f"{mount.mountpoint}: some writes were lost: {failure.strerror}") from failure
