"""Filesystems on images of their own, each freshly made, mounted and unmounted in the same way."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Protocol

from deferfs.errors import DeferfsError
from deferfs.measure.host.commands import run_command, run_deferfs

IMAGE_BYTES: Final = 2 << 30
MOUNT_SECONDS_MAX: Final = 30.0
"""Timeout for a filesystem that mounts in the background."""
UNMOUNT_ATTEMPTS: Final = 100
POLL_SECONDS: Final = 0.05


class Filesystem(Protocol):
    """A kind of filesystem that can be made in an empty directory and mounted."""

    name: str
    needs: Sequence[str]
    """Programs that it needs."""

    def make(self, home: Path) -> None: ...

    def mount(self, home: Path, mountpoint: Path) -> None: ...

    def unmount(self, mountpoint: Path) -> None: ...


class Deferfs:
    """The `deferfs` of this interpreter."""

    name = "deferfs"
    needs: Sequence[str] = ()

    def __init__(self, options: str = "", size: int = IMAGE_BYTES, format_options: Sequence[str] = ()) -> None:
        self._options, self._size, self._format_options = options, size, format_options

    def make(self, home: Path) -> None:
        image = str(home / "image")
        run_deferfs(["mkfs", image, "--size", str(self._size), *self._format_options])

    def mount(self, home: Path, mountpoint: Path) -> None:
        options = ["-o", self._options] if self._options else []
        run_deferfs(["mount", str(home / "image"), str(mountpoint), *options])

    def unmount(self, mountpoint: Path) -> None:
        run_deferfs(["umount", str(mountpoint)])


class Fuse2fs:
    """ext4 in userspace: C on libext2fs. It does not journal its own changes."""

    name = "fuse2fs"
    needs: Sequence[str] = ("mkfs.ext4", "fuse2fs")

    def make(self, home: Path) -> None:
        image = home / "image"
        with image.open("wb") as file:
            file.truncate(IMAGE_BYTES)
        run_command(["mkfs.ext4", "-q", "-F", str(image)])

    def mount(self, home: Path, mountpoint: Path) -> None:
        run_command(["fuse2fs", str(home / "image"), str(mountpoint)])

    def unmount(self, mountpoint: Path) -> None:
        plain_unmount(mountpoint)


class Gocryptfs:
    """Encrypted files in a directory of the host's filesystem: Go, with the host's journal."""

    name = "gocryptfs"
    needs: Sequence[str] = ("gocryptfs",)
    _password = ("-extpass", "echo", "-extpass", "benchmark")

    def make(self, home: Path) -> None:
        (home / "cipher").mkdir()
        run_command(["gocryptfs", "-init", "-q", "-scryptn", "10", *self._password, str(home / "cipher")])

    def mount(self, home: Path, mountpoint: Path) -> None:
        run_command(["gocryptfs", "-q", *self._password, str(home / "cipher"), str(mountpoint)])

    def unmount(self, mountpoint: Path) -> None:
        plain_unmount(mountpoint)


class Program:
    """A filesystem served by a program in the foreground; the mountpoint is appended to `command`."""

    needs: Sequence[str] = ()

    def __init__(self, name: str, command: Sequence[str]) -> None:
        self.name, self._command = name, command

    def make(self, home: Path) -> None:
        """No-op."""

    def mount(self, home: Path, mountpoint: Path) -> None:
        self._process = subprocess.Popen([*self._command, str(mountpoint)])

    def unmount(self, mountpoint: Path) -> None:
        plain_unmount(mountpoint)
        self._process.wait(MOUNT_SECONDS_MAX)


def plain_unmount(mountpoint: Path) -> None:
    """umount(8), retried while the mount is busy, then wait until its image is free for the next mount."""
    for _ in range(UNMOUNT_ATTEMPTS):
        done = subprocess.run(["umount", str(mountpoint)], check=False, capture_output=True)
        if not done.returncode:
            return
        time.sleep(POLL_SECONDS)
    raise DeferfsError(f"{mountpoint} cannot be unmounted: {done.stderr.decode().strip()}")


@contextlib.contextmanager
def mounted(filesystem: Filesystem, home: Path, mountpoint: Path) -> Iterator[Path]:
    """`filesystem`, already made in `home`, mounted for the length of the block."""
    filesystem.mount(home, mountpoint)
    deadline = time.monotonic() + MOUNT_SECONDS_MAX
    while not os.path.ismount(mountpoint):
        if time.monotonic() > deadline:
            raise DeferfsError(f"{filesystem.name} did not mount within {MOUNT_SECONDS_MAX:.0f} s")
        time.sleep(POLL_SECONDS)
    try:
        yield mountpoint
    finally:
        filesystem.unmount(mountpoint)


@contextlib.contextmanager
def fresh(filesystem: Filesystem, home: Path) -> Iterator[Path]:
    """A new filesystem in the empty directory `home`, mounted; everything is removed afterwards."""
    home.mkdir()
    (home / "mnt").mkdir()
    filesystem.make(home)
    with mounted(filesystem, home, home / "mnt") as root:
        yield root
    shutil.rmtree(home)
