"""Taking a mount down from outside, and waiting until its image is clean."""

from __future__ import annotations

import errno
import os
import select
import subprocess
from collections.abc import Callable
from typing import Final

from deferfs.device import FileDevice
from deferfs.errors import ControlError, DeferfsError, ImageError
from deferfs.mount import control_client, mountinfo, syscalls
from deferfs.mount.image import ignore_notice, load_superblock, open_image
from deferfs.mount.mountpoint import is_dead
from deferfs.mount.users import users_of
from deferfs.ondisk.superblock import STATE_ERRORS

STATE_POLL_SECONDS: Final = 5.0
"""How often to ask a daemon that has not ended whether it is stopping at all."""
USERS_SHOWN_MAX: Final = 5


class UnmountError(DeferfsError):
    """The mount is still there, or its image is not clean."""


def unmount(path: str, *, notice: Callable[[str], None] = ignore_notice) -> None:
    """Unmount the deferfs at `path` (its mountpoint or its image); returns when the image is clean.

    A mount whose daemon has died is detached; `notice` then says so. UnmountError says who keeps it busy.
    """
    mount = control_client.find_mount(path)
    _check_is_mountpoint(path, mount)
    try:
        daemon = control_client.find_daemon(mount)
        process = os.pidfd_open(daemon.pid)
    except (control_client.NoDaemonError, ProcessLookupError):
        _unmount_without_daemon(mount, notice)
        return
    try:
        _detach(mount)
        remaining = _same_filesystem(mount)
        if remaining is not None:
            notice(f"{mount.mountpoint}: unmounted; the image is still mounted on {remaining}")
            return
        _wait_for_end(process, mount, notice)
    finally:
        os.close(process)
    _check_clean(mount, notice)


def _check_is_mountpoint(path: str, mount: mountinfo.Mount) -> None:
    """`umount /mnt/some/directory` must not take /mnt away."""
    names = {os.path.abspath(path)}
    if mount.mountpoint not in names:
        names.add(os.path.realpath(path))
    if mount.mountpoint not in names and mount.source not in names:
        raise UnmountError(f"{path}: not a mountpoint; it is inside of {mount.mountpoint}")


def _unmount_without_daemon(mount: mountinfo.Mount, notice: Callable[[str], None]) -> None:
    if _is_dead(mount.mountpoint):
        _detach(mount, lazily=True)
        notice(f"{mount.mountpoint}: its daemon had died; detached (the next mount recovers {mount.source})")
        return
    _detach(mount)
    if _same_filesystem(mount) is None:
        _check_clean(mount, notice)


def _is_dead(mountpoint: str) -> bool:
    try:
        os.statvfs(mountpoint)  # stat could be answered from the kernel's cache
    except OSError as error:
        return is_dead(error)
    return False


def _detach(mount: mountinfo.Mount, *, lazily: bool = False) -> None:
    target = mount.mountpoint
    if os.geteuid() != 0:
        _detach_by_helper(mount, lazily=lazily)
        return
    try:
        syscalls.umount(target, syscalls.MNT_DETACH if lazily else 0)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise _busy(mount) from error
        raise UnmountError(f"{target}: cannot be unmounted: {error.strerror}") from error


def _detach_by_helper(mount: mountinfo.Mount, *, lazily: bool) -> None:
    target = mount.mountpoint
    command = ["fusermount3", "-u", *(["-z"] if lazily else []), "--", target]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise UnmountError(f"{target}: needs fusermount3 (install fuse3), or root") from error
    if done.returncode == 0:
        return
    if "busy" in done.stderr.lower():
        raise _busy(mount)
    reason = done.stderr.strip().splitlines()[-1:] or ["fusermount3 failed"]
    raise UnmountError(f"{target}: cannot be unmounted: {reason[0].removeprefix('fusermount3: ')}")


def _busy(mount: mountinfo.Mount) -> UnmountError:
    target = mount.mountpoint
    users = users_of(mount.device)
    if not users:
        return UnmountError(f"{target}: busy; another mount is inside of it, or a hidden process uses it")
    shown = ", ".join(str(user) for user in users[:USERS_SHOWN_MAX])
    more = f" and {len(users) - USERS_SHOWN_MAX} more" if len(users) > USERS_SHOWN_MAX else ""
    return UnmountError(f"{target}: busy: used by {shown}{more}")


def _same_filesystem(mount: mountinfo.Mount) -> str | None:
    """Another mountpoint of the same filesystem (a bind mount keeps the daemon serving)."""
    for other in mountinfo.read():
        if other.device == mount.device:
            return other.mountpoint
    return None


def _wait_for_end(process: int, mount: mountinfo.Mount, notice: Callable[[str], None]) -> None:
    """Until the daemon has ended. UnmountError when it goes on serving: some other namespace has the mount."""
    poller = select.poll()
    poller.register(process, select.POLLIN)
    told = False
    while not poller.poll(STATE_POLL_SECONDS * 1000):
        try:
            state = control_client.ask(mount, "state")
        except ControlError:
            continue
        if state == "serving":
            raise UnmountError(
                f"{mount.mountpoint}: unmounted here, but another mount namespace still uses {mount.source}"
            )
        if not told:
            notice(f"{mount.mountpoint}: the daemon is still writing everything back")
            told = True


def _check_clean(mount: mountinfo.Mount, notice: Callable[[str], None]) -> None:
    """The daemon has let go of the image in good order; `notice` is told when it has met errors on it."""
    try:
        device: FileDevice = open_image(mount.source, writable=False)
    except ImageError:
        return  # the image has been renamed or deleted meanwhile: nothing to check
    try:
        superblock = load_superblock(device)
    finally:
        device.close()
    if superblock.state & STATE_ERRORS:
        notice(f"{mount.source}: marked as having errors; repair it: deferfs fsck -y {mount.source}")
    if not superblock.clean and not mount.read_only:
        raise UnmountError(
            f"{mount.source}: unmounted, but not cleanly: see the daemon's log; the next mount recovers it"
        )
