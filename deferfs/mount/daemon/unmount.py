"""Unmounting from outside the daemon, and waiting until the image is clean.

The messages and exit codes of `unmount` are in a table in docs/command-line.md.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Final

from deferfs.contract.answers import Outcome
from deferfs.contract.requests import GetState
from deferfs.device.identity import identity_of
from deferfs.errors import ControlError, DeferfsError
from deferfs.mount.control import client
from deferfs.mount.control.client import Ending
from deferfs.mount.daemon.image import ignore_notice
from deferfs.mount.host import mountinfo, own_mounts
from deferfs.mount.host.mountinfo import Mount
from deferfs.mount.host.mountpoint import is_dead
from deferfs.mount.host.own_mounts import Obstacle
from deferfs.mount.host.users import name_of, users_of

STATE_POLL_SECONDS: Final = 1.0
"""Interval between checks whether the daemon is stopping at all."""
UNANSWERED_MAX: Final = 2
"""Unanswered checks in a row that are normal because the daemon is about to end."""
USERS_SHOWN_MAX: Final = 5


class UnmountError(DeferfsError):
    """The filesystem is still mounted, or its image is not clean."""


def unmount(path: str, *, notice: Callable[[str], None] = ignore_notice) -> None:
    """Unmount the deferfs at `path` (its mountpoint, or its image: then everywhere); returns when the image is clean.

    `notice` is called with other news for the user: that another mount keeps the image in use, or that a dead mount was
    detached. UnmountError says what keeps the filesystem mounted, or what was not written.
    """
    mount = client.find_mount(path)
    of_image = _is_image(path, mount)
    try:
        ending = Ending(mount)
    except (client.NoDaemonError, ProcessLookupError):
        _unmount_without_daemon(mount, notice)
        return
    try:
        _take_away(mount, all_of_them=of_image)
        if _stays_mounted(mount, ending, notice, of_image=of_image):
            return
        outcome = ending.outcome()
    finally:
        ending.close()
    _judge(mount, outcome, notice)


def _is_image(path: str, mount: Mount) -> bool:
    """Whether `path` is the image, not the mountpoint. `umount /mnt/some/directory` must not unmount /mnt."""
    if mount.mountpoint in (os.path.abspath(path), _resolve(path)):
        return False
    found = mountinfo.find_deferfs(path)
    if found is not None:
        raise UnmountError(f"{path}: not a mountpoint; it is inside of {found.mountpoint}")
    return True


def _resolve(path: str) -> str:
    """Resolve symbolic links except in the last component: a filesystem mounted there may hang."""
    directory, name = os.path.split(os.path.abspath(path))
    return os.path.join(os.path.realpath(directory), name)


def _take_away(mount: Mount, *, all_of_them: bool) -> None:
    """Unmount `mount`, or all mounts of its filesystem in this namespace, newest first. UnmountError at the first
    failure."""
    mounts = [other for other in mountinfo.read() if _is_same_filesystem(other, mount)] if all_of_them else [mount]
    for one in reversed(mounts):
        obstacle = own_mounts.unmount(one, privileged=os.geteuid() == 0)
        if obstacle is not None:
            raise _explain(obstacle)


def _explain(obstacle: Obstacle) -> UnmountError:
    if not obstacle.is_busy:
        return UnmountError(str(obstacle))
    place = obstacle.mount.mountpoint
    users = users_of(obstacle.mount.device)
    if not users:
        return UnmountError(f"{place}: busy; a hidden process uses it")
    shown = ", ".join(str(user) for user in users[:USERS_SHOWN_MAX])
    more = f" and {len(users) - USERS_SHOWN_MAX} more" if len(users) > USERS_SHOWN_MAX else ""
    return UnmountError(f"{place}: busy: used by {shown}{more}")


def _is_same_filesystem(other: Mount, mount: Mount) -> bool:
    return other.is_deferfs and other.device == mount.device and other.source == mount.source


# --- the daemon has died ---
def _unmount_without_daemon(mount: Mount, notice: Callable[[str], None]) -> None:
    if not _is_dead(mount.mountpoint):
        raise UnmountError(
            f"{mount.mountpoint}: its daemon is alive, but cannot be reached; umount {mount.mountpoint} unmounts it"
        )
    obstacle = own_mounts.detach(mount, privileged=os.geteuid() == 0)
    if obstacle is not None:
        raise UnmountError(str(obstacle))
    notice(f"{mount.mountpoint}: its daemon had died; detached (the next mount recovers {mount.source})")


def _is_dead(mountpoint: str) -> bool:
    try:
        os.statvfs(mountpoint)  # not stat, which the kernel could answer from its cache
    except OSError as error:
        return is_dead(error)
    return False


# --- the daemon is alive ---
def _stays_mounted(mount: Mount, ending: Ending, notice: Callable[[str], None], *, of_image: bool) -> bool:
    """Wait for the daemon's end: False. True, after a `notice`, when the image remains in use; UnmountError instead if
    the image was to be unmounted everywhere."""
    holder = _holder_here(mount)
    told, unanswered = False, 0
    while holder is None and not ending.wait(STATE_POLL_SECONDS):
        try:
            state = client.ask_within(mount, GetState(), STATE_POLL_SECONDS, pid=ending.pid)
        except ControlError:  # it is about to end or is stopped; its device number may even have been reused
            unanswered += 1
            if not told and unanswered == UNANSWERED_MAX:
                notice(
                    f"{mount.mountpoint}: unmounted; waiting for the daemon (pid {ending.pid}), which does not answer"
                )
                told = True
            continue
        if state == "serving":
            holder = _holder_elsewhere(mount)
        elif not told:
            notice(f"{mount.mountpoint}: the daemon is still writing everything back")
            told = True
    if holder is None:
        return False
    text = f"{mount.mountpoint}: unmounted; {holder}"
    if of_image:
        raise UnmountError(text)
    notice(text)
    return True


def _holder_here(mount: Mount) -> str | None:
    """A bind mount in this namespace keeps the daemon serving."""
    for other in mountinfo.read():
        if _is_same_filesystem(other, mount):
            return f"the image is still mounted on {other.mountpoint}"
    return None


def _holder_elsewhere(mount: Mount) -> str:
    """The uses of the filesystem that this user can see, and how to end them."""
    until = f"the daemon keeps serving {mount.source} until"
    namespace = _namespace_with(mount)
    if namespace is not None:
        pid, place = namespace
        name = name_of(f"/proc/{pid}")
        return (
            f"another mount namespace, that of {name} (pid {pid}), still has it on {place}: {until} that ends, or "
            f"nsenter -t {pid} -m umount {place}"
        )
    users = users_of(mount.device)
    if users:
        return f"it was detached while in use: {until} it is closed by {', '.join(map(str, users[:USERS_SHOWN_MAX]))}"
    return f"another mount namespace or a hidden process still uses it: {until} that ends"


def _namespace_with(mount: Mount) -> tuple[int, str] | None:
    """A process whose mount namespace contains the filesystem, and the mountpoint there."""
    seen = set()
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        try:
            namespace = os.readlink(f"/proc/{pid}/ns/mnt")
            if namespace in seen:
                continue
            seen.add(namespace)
            table = mountinfo.read(f"/proc/{pid}")
        except OSError:
            continue
        for other in table:
            if _is_same_filesystem(other, mount):
                return pid, other.mountpoint
    return None


# --- the daemon has ended ---
def _judge(mount: Mount, outcome: Outcome | None, notice: Callable[[str], None]) -> None:
    """Report the final state of the image. UnmountError when not all writes are in it."""
    if outcome is None:
        raise UnmountError(
            f"{mount.source}: unmounted, but its daemon ended before it had written everything back; the next mount "
            "recovers it"
        )
    if outcome.problem:
        raise UnmountError(
            f"{mount.source}: unmounted, but the journal was aborted ({outcome.problem}): the last writes are "
            f"lost; check the disk below, then deferfs fsck -n {mount.source}"
        )
    if outcome.errors:
        notice(f"{mount.source}: marked as having errors; repair it: deferfs fsck -y {mount.source}")
    if not outcome.clean:
        raise UnmountError(
            f"{mount.source}: unmounted, but not cleanly: see the daemon's log; the next mount recovers it"
        )
    _judge_name(mount, outcome, notice)


def _judge_name(mount: Mount, outcome: Outcome, notice: Callable[[str], None]) -> None:
    """The name of the image may lead to another file by now."""
    try:
        now = identity_of(mount.source)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):
            return
        now = None
    if now == (outcome.device, outcome.inode):
        return
    event = "deleted" if now is None else "replaced by another file"
    if not outcome.names:
        raise UnmountError(
            f"{mount.source}: unmounted, but it was {event} while it was mounted: what was written to it is gone"
        )
    notice(f"{mount.source}: was moved or {event} while it was mounted; what was written is in the file that was moved")
