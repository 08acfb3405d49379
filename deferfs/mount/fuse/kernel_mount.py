"""Attaching to the kernel and detaching again.

Root calls mount(2) itself, which gives exact flags, any character in the image's path, and the kernel's own errno.
libfuse is then given the descriptor (/dev/fd/N). For an ordinary user, libfuse calls fusermount3.
"""

from __future__ import annotations

import errno
import os
import select
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pyfuse3

from deferfs.errors import EnvironmentProblem, MountFailedError
from deferfs.mount.host import mountinfo, syscalls
from deferfs.mount.host.mountpoint import FUSE_DEVICE, check_mountpoint
from deferfs.mount.host.options import MountOptions
from deferfs.mount.host.own_mounts import Obstacle, OwnMounts

_STDERR: Final = 2


class KernelMount:
    """A mount, attached from `attach` until the kernel releases it."""

    def __init__(self, image: str, mountpoint: str, options: MountOptions) -> None:
        self.image = image
        self.mountpoint = mountpoint
        self._options = options
        self._privileged = os.geteuid() == 0
        self.fd = -1
        """The descriptor that requests are read from, while attached."""
        self.identity = syscalls.MountIdentity("", 0)
        """Device number and (never reused) mount id of the mount at `mountpoint` when it was attached."""
        self.own = OwnMounts("", self.is_alive, privileged=self._privileged)

    def attach(self, operations: pyfuse3.Operations) -> None:
        """Mount; requests are queued from now on. MountFailedError when the kernel refuses."""
        mode = check_mountpoint(self.mountpoint)
        if self._privileged:
            self._attach_directly(operations, mode)
        else:
            self._attach_by_helper(operations)
            self._remember()

    def _remember(self) -> None:
        """Identify the new mount by its device number, which stays the same wherever it is moved."""
        self.identity = syscalls.mount_identity(self.mountpoint, unique=True)
        self.own = OwnMounts(self.identity.device, self.is_alive, privileged=self._privileged)

    def is_alive(self) -> bool:
        """Whether the kernel still has the filesystem, mounted or not, so that `place.device` has not been reused."""
        if self.fd < 0:
            return bool(self.identity.device)
        poller = select.poll()
        poller.register(self.fd, 0)
        return not poller.poll(0)

    def _attach_directly(self, operations: pyfuse3.Operations, mode: int) -> None:
        fd = _open_fuse()
        data = self._options.kernel_data(fd, mode, os.getuid(), os.getgid())
        flags = self._options.flags | syscalls.MS_POSIXACL  # FUSE: the filesystem applies the umask, or a default ACL
        try:
            syscalls.mount(self.image, self.mountpoint, mountinfo.FSTYPE, flags, data)
        except OSError as error:
            os.close(fd)
            raise MountFailedError(f"{self.mountpoint}: {_explain(error)}") from error
        self.fd = fd
        self._remember()
        try:
            pyfuse3.init(operations, f"/dev/fd/{fd}", self._options.library_options())
        except BaseException:
            self.detach()
            raise

    def _attach_by_helper(self, operations: pyfuse3.Operations) -> None:
        complaints: list[str] = []
        try:
            with _captured_stderr(complaints):
                pyfuse3.init(operations, self.mountpoint, self._options.helper_options(self.image))
        except RuntimeError as error:
            reason = complaints[0] if complaints else str(error)
            raise MountFailedError(f"{self.mountpoint}: {_without_prefix(reason)}") from error
        self.fd = _find_fuse_fd()

    @property
    def device(self) -> str:
        """The "major:minor" of the filesystem."""
        return self.identity.device

    def open(self) -> int | None:
        """A descriptor of the root, which keeps the filesystem in use; None when no path leads to it."""
        return self.own.open_one()

    def sync(self) -> bool:
        """Make the kernel write back its dirty pages. False when no mount can be reached for that. OSError: some writes
        were lost. Blocks, so it must not run on the event loop's thread.
        """
        fd = self.open()
        if fd is None:
            return False
        try:
            syscalls.syncfs(fd)
        finally:
            os.close(fd)
        return True

    def set_read_only(self, read_only: bool) -> None:
        """Make the kernel refuse changes, or allow them. OSError: EBUSY while files are open for writing, ENOENT when
        no mount can be reached.

        On a mount of an ordinary user, only the daemon refuses them. Blocks, as `sync`.
        """
        if not self._privileged:
            return
        flags = self._options.flags & ~syscalls.MS_RDONLY
        if read_only:
            flags |= syscalls.MS_RDONLY
        fd = self.open()
        if fd is None:
            raise OSError(errno.ENOENT, "another filesystem is mounted over it", self.mountpoint)
        try:
            place = f"/proc/self/fd/{fd}"  # leads to this mount, whatever is mounted on its path meanwhile
            syscalls.mount(self.image, place, mountinfo.FSTYPE, flags | syscalls.MS_REMOUNT, "")
        finally:
            os.close(fd)

    def unmount(self) -> list[Obstacle]:
        """Unmount all mounts that are not in use; returns those that remain, and why.

        Blocks until the kernel has written back its dirty pages, so it must not run on the event loop's thread.
        """
        return self.own.unmount()

    def detach(self) -> list[Obstacle]:
        """As `unmount`, but also mounts in use, and without waiting for dirty pages."""
        return self.own.detach()


def _open_fuse() -> int:
    try:
        return os.open(FUSE_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        hint = "; load the module: modprobe fuse" if error.errno in (errno.ENOENT, errno.ENODEV) else ""
        raise EnvironmentProblem(f"{FUSE_DEVICE}: {error.strerror}{hint}") from error


def _find_fuse_fd() -> int:
    """The descriptor that libfuse received from fusermount3 and does not expose; -1 when it cannot be found."""
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{name}") == FUSE_DEVICE:
                return int(name)
        except OSError:
            continue
    return -1


def _explain(error: OSError) -> str:
    if error.errno == errno.EPERM:
        return "the kernel does not let this process mount; run as root, outside of an unprivileged container"
    if error.errno == errno.ENODEV:
        return "the kernel does not know FUSE; load the module: modprobe fuse"
    return f"cannot mount: {error.strerror}"


def _without_prefix(line: str) -> str:
    for prefix in ("fusermount3: ", "fuse: "):
        line = line.removeprefix(prefix)
    return line


@contextmanager
def _captured_stderr(lines: list[str]) -> Iterator[None]:
    """Collect in `lines` what libfuse and its helper print to file descriptor 2."""
    saved = os.dup(_STDERR)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), _STDERR)
        try:
            yield
        finally:
            os.dup2(saved, _STDERR)
            os.close(saved)
            file.seek(0)
            lines.extend(os.fsdecode(file.read()).splitlines())
