"""The filesystems compared by scenarios: made on a device, mounted, unmounted.

Those of the kernel are made with the defaults of their mkfs; nothing is tuned for or against one of them. Commands that
measure have a mount namespace of their own: a mount in a common one could be copied into others, and stay busy there.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from deferfs.errors import DeferfsError, EnvironmentProblem
from deferfs.measure.host.commands import run_command, run_deferfs

UNMOUNT_ATTEMPTS: Final = 100
UNMOUNT_PAUSE_SECONDS: Final = 0.05
"""A filesystem may be busy for a moment after the last process that used it has ended: 100 times 50 ms."""
UNMOUNT_SECONDS_MAX: Final = 900.0
"""Longest unmount: it writes back everything."""
KNOWN_TO_THE_KERNEL: Final = Path("/proc/filesystems")
"""Filesystems that the kernel can mount."""
FUSE_DEVICE: Final = Path("/dev/fuse")
MIB: Final = 1 << 20


class Filesystem(msgspec.Struct, frozen=True):
    """A kind of filesystem. `make` is a command to which the device is appended; empty when none is needed. `module` is
    its name in /proc/filesystems, `package` the Debian package of its mkfs, `cache` the slab cache of its inodes in
    /proc/slabinfo, `smallest_bytes` the smallest device that its mkfs accepts.
    """

    name: str
    module: str
    cache: str
    make: tuple[str, ...] = ()
    package: str = ""
    smallest_bytes: int = 16 * MIB
    on_device: bool = True


_EAGER: Final = ("-E", "lazy_itable_init=0,lazy_journal_init=0")
"""Otherwise a kernel thread zeroes inode tables for minutes after the mount, during the measurement."""
FILESYSTEMS: Final = {
    found.name: found
    for found in (
        Filesystem("ext4", "ext4", "ext4_inode_cache", ("mkfs.ext4", "-q", "-F", *_EAGER), "e2fsprogs"),
        Filesystem("xfs", "xfs", "xfs_inode", ("mkfs.xfs", "-q", "-f"), "xfsprogs", 300 * MIB),
        Filesystem("btrfs", "btrfs", "btrfs_inode", ("mkfs.btrfs", "-q", "-f"), "btrfs-progs", 128 * MIB),
        Filesystem("deferfs", "fuse", "fuse_inode", ("deferfs", "mkfs", "-q", "-f")),
        Filesystem("tmpfs", "tmpfs", "shmem_inode_cache", on_device=False),
    )
}


def missing(filesystem: Filesystem) -> str:
    """One line that says what this machine lacks to make and mount `filesystem`; empty when nothing. Loads the kernel
    module if needed.
    """
    if os.geteuid() != 0:
        return f"mounting {filesystem.name} needs root"
    if filesystem.package and shutil.which(filesystem.make[0]) is None:
        return f"{filesystem.make[0]} is missing: install the package {filesystem.package}"
    if not knows(filesystem.module):
        return f"this kernel has no {filesystem.module}"
    if filesystem.module == "fuse" and not FUSE_DEVICE.exists():
        return f"{FUSE_DEVICE} is missing"
    return ""


def knows(module: str) -> bool:
    """Whether the kernel can mount filesystems of type `module`; loads the module if possible."""
    if module in _known():
        return True
    if shutil.which("modprobe"):
        subprocess.run(["modprobe", "--quiet", module], check=False, capture_output=True)
    return module in _known()


def _known() -> list[str]:
    try:
        return KNOWN_TO_THE_KERNEL.read_text().split()
    except OSError:
        return []


def make(filesystem: Filesystem, device: Path) -> None:
    """Make an empty filesystem on `device`, a block device or an image file of its full size. DeferfsError when its
    mkfs fails.
    """
    if filesystem.make:
        program, *options = filesystem.make
        if program == "deferfs":
            run_deferfs([*options, str(device)])
        else:
            run_command([program, *options, str(device)])


@contextlib.contextmanager
def loop_device(image: Path) -> Iterator[Path]:
    """A loop device on the file `image`, for the length of the block. EnvironmentProblem where there are none."""
    try:
        device = run_command(["losetup", "--find", "--show", str(image)]).strip()
    except DeferfsError as error:
        raise EnvironmentProblem(f"no loop device can be had: {error}") from error
    try:
        yield Path(device)
    finally:
        # The kernel detaches a device in use when its last user closes it.
        run_command(["losetup", "--detach", device])


@contextlib.contextmanager
def mounted(
    filesystem: Filesystem, device: Path, mountpoint: Path, options: str = "", enter: Callable[[], None] | None = None
) -> Iterator[Path]:
    """`filesystem` mounted on the directory `mountpoint` for the length of the block, after which it may be busy for a
    moment. `options` are those of mount -o. `enter` is called in the process that mounts, e.g. to join a cgroup.
    """
    added = ["-o", options] if options else []
    if filesystem.name == "deferfs":
        run_deferfs(["mount", str(device), str(mountpoint), *added], enter=enter)
    else:
        run_command(["mount", "-t", filesystem.module, *added, str(device), str(mountpoint)], enter=enter)
    try:
        yield mountpoint
    finally:
        if filesystem.name == "deferfs":
            unmount_deferfs(mountpoint)
        else:
            unmount(mountpoint)


@contextlib.contextmanager
def overlaid(lower: Path, empty: Path, mountpoint: Path) -> Iterator[Path]:
    """An overlay of the directory `lower`, read-only, for the length of the block. Without an upper layer overlayfs
    needs two lower ones: `empty`, an empty directory.
    """
    run_command(["mount", "-t", "overlay", "overlay", "-o", f"lowerdir={lower}:{empty}", str(mountpoint)])
    try:
        yield mountpoint
    finally:
        unmount(mountpoint)


def unmount(mountpoint: Path, ordinary: Callable[[], object] | None = None) -> None:
    """Unmount, retrying while the mount is busy; then detach it, so that it goes with its last user. DeferfsError when
    that fails, too, or when another problem is found after the unmount.
    """
    problem: DeferfsError | None = None
    for _ in range(UNMOUNT_ATTEMPTS):
        if not os.path.ismount(mountpoint):
            return
        try:
            if ordinary is not None:
                ordinary()
            else:
                run_command(["umount", str(mountpoint)])
        except DeferfsError as error:
            if not os.path.ismount(mountpoint):
                raise
            problem = error
            time.sleep(UNMOUNT_PAUSE_SECONDS)
    if os.path.ismount(mountpoint):
        run_command(["umount", "--lazy", str(mountpoint)])
        raise DeferfsError(f"{mountpoint} stayed busy and was only detached: {problem}")


def unmount_deferfs(mountpoint: Path) -> None:
    """As `unmount`; finishes all cleanups. DeferfsError also when the image is not clean afterwards."""
    unmount(mountpoint, lambda: run_deferfs(["umount", str(mountpoint)], UNMOUNT_SECONDS_MAX))
