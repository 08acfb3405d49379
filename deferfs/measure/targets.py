"""What is measured: a filesystem that can be prepared once and then opened in one mode after the
other.

Every run of a benchmark must start from the same state. A `DeferfsTarget` gets that by working on
a fresh copy of one prepared image; a `DirectoryTarget`, which cannot copy somebody's filesystem,
by removing all that a run left behind.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from deferfs.errors import DeferfsError, EnvironmentProblem
from deferfs.measure.results import CONTROL
from deferfs.measure.tree import make_tree
from deferfs.measure.victims import make_victims
from deferfs.printable import printable

Statistics = dict[str, Any]
ReadStatistics = Callable[[Path], Statistics]
"""Asks the daemon behind a mountpoint for the object that `deferfs stat --json` prints; raises
`DeferfsError`.
"""

INLINE: Final = "inline"
DEFERRED: Final = "deferred"
AS_MOUNTED: Final = "as-mounted"
IMAGE_BYTES: Final = 2 << 30
"""Sparse; only what the tree and one run write takes space."""
COMMAND_SECONDS_MAX: Final = 120
DROP_CACHES: Final = Path("/proc/sys/vm/drop_caches")


class Opened:
    """A target opened in one mode. `stop_seconds` is known once it has been closed again."""

    def __init__(self, root: Path, read_statistics: ReadStatistics | None = None) -> None:
        self.root = root
        self.stop_seconds = 0.0
        self._read_statistics = read_statistics

    def statistics(self) -> Statistics | None:
        """What the daemon says about itself; None when there is no deferfs to ask."""
        return self._read_statistics(self.root) if self._read_statistics else None


class Target(Protocol):
    """Something to measure. `baseline` and `candidate` are the modes whose ratio is reported."""

    name: str
    baseline: str
    candidate: str
    scratch: Path
    mount_options: str

    def prepare(self, tree_files: int, victims: int) -> None:
        """Make the tree and the files to delete; once."""

    def opened(self, mode: str) -> contextlib.AbstractContextManager[Opened]:
        """The target in `mode` (baseline, candidate or the control), as `prepare` left it."""

    def close(self) -> None:
        """Remove everything that was made."""


def run_command(
    command: Sequence[str], seconds_max: float = COMMAND_SECONDS_MAX, enter: Callable[[], None] | None = None
) -> str:
    """Run a command to its end and return what it prints; its last line of stderr becomes the
    error. `enter` is called in the new process before the command starts, as to join a cgroup.
    """
    try:
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=seconds_max,
            preexec_fn=enter,
            start_new_session=True,  # Ctrl-C is for the benchmark, which then unmounts in order
        )
    except OSError as error:
        raise EnvironmentProblem(f"cannot run {command[0]}: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise DeferfsError(f"`{' '.join(command)}` did not end in {seconds_max:.0f} s") from error
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise DeferfsError(f"`{' '.join(command)}` failed with code {done.returncode}: {said}")
    return done.stdout


def deferfs_command() -> list[str]:
    """How to start the `deferfs` that belongs to this interpreter, installed or not."""
    installed = Path(sys.executable).with_name("deferfs")
    if installed.exists():
        return [str(installed)]
    return [sys.executable, "-c", "from deferfs.cli.entry import main; main()"]


def copy_image(source: Path, destination: Path) -> None:
    """Copy an image, sharing its blocks where the filesystem can and leaving its holes holes, down
    to the disk.
    """
    run_command(["cp", "--sparse=always", "--reflink=auto", str(source), str(destination)])
    descriptor = os.open(destination, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def drop_dentries() -> None:
    """Make the tree cold: the workload's cgroup is charged only for entries that it brings in
    itself.

    Needs root and drops the clean dentries and inodes of the whole machine, once before a run;
    without root the run goes on with what is cached.
    """
    os.sync()
    try:
        DROP_CACHES.write_text("2")
    except OSError:
        pass


class DeferfsTarget:
    """A scratch image, mounted with one evict policy or the other.

    The control is mounted as the candidate is: with nothing to clean up, the policies do not
    differ.
    """

    name = "deferfs"
    baseline = INLINE
    candidate = DEFERRED

    def __init__(
        self,
        read_statistics: ReadStatistics,
        mount_options: str = "",
        directory: Path | None = None,
    ) -> None:
        self.mount_options = mount_options
        self.scratch = Path(tempfile.mkdtemp(prefix="deferfs-bench-", dir=directory))
        self._read_statistics = read_statistics
        self._prepared = self.scratch / "prepared.img"
        self._image = self.scratch / "run.img"
        self._mountpoint = self.scratch / "mnt"
        self._mountpoint.mkdir()

    def prepare(self, tree_files: int, victims: int) -> None:
        """Make the image with tree and victims in it."""
        run_command([*deferfs_command(), "mkfs", str(self._prepared), "--size", str(IMAGE_BYTES)])
        with self._mounted(self._prepared, self.candidate) as opened:
            make_tree(opened.root, tree_files)
            make_victims(opened.root, victims)

    @contextlib.contextmanager
    def opened(self, mode: str) -> Iterator[Opened]:
        """A fresh copy of the image, mounted for `mode`."""
        copy_image(self._prepared, self._image)
        policy = self.candidate if mode == CONTROL else mode
        with self._mounted(self._image, policy) as opened:
            yield opened
        self._image.unlink()

    def close(self) -> None:
        """Remove the images, unmounting first what an interrupted run left mounted."""
        if os.path.ismount(self._mountpoint):
            run_command([*deferfs_command(), "umount", str(self._mountpoint)])
        shutil.rmtree(self.scratch)

    @contextlib.contextmanager
    def _mounted(self, image: Path, policy: str) -> Iterator[Opened]:
        options = ",".join(filter(None, (f"evict={policy}", self.mount_options)))
        run_command([*deferfs_command(), "mount", str(image), str(self._mountpoint), "-o", options])
        opened = Opened(self._mountpoint, self._read_statistics)
        try:
            yield opened
        finally:
            start = time.monotonic()
            run_command([*deferfs_command(), "umount", str(self._mountpoint)])
            opened.stop_seconds = time.monotonic() - start


class DirectoryTarget:
    """A directory on some mounted filesystem, measured as it is.

    On a deferfs mount the evict policy is switched live; on any other filesystem there is nothing
    to switch, and what is compared is the workload with the control.
    """

    mount_options = ""

    def __init__(
        self,
        directory: Path,
        read_statistics: ReadStatistics | None = None,
        switch_policy: Callable[[Path, str], None] | None = None,
    ) -> None:
        if not directory.is_dir():
            raise EnvironmentProblem(f"{directory} is not a directory; --target takes a directory to work in")
        self.name = printable(str(directory))
        self.baseline = INLINE if switch_policy else AS_MOUNTED
        self.candidate = DEFERRED if switch_policy else CONTROL
        try:
            self.scratch = Path(tempfile.mkdtemp(prefix="deferfs-bench-", dir=directory))
        except OSError as error:
            raise EnvironmentProblem(f"cannot work in {directory}: {error.strerror}") from error
        self._victims = 0
        self._read_statistics = read_statistics
        self._switch_policy = switch_policy

    def prepare(self, tree_files: int, victims: int) -> None:
        """Make the tree; a run deletes the victims, so each run starts by making them."""
        make_tree(self.scratch, tree_files)
        self._victims = victims

    @contextlib.contextmanager
    def opened(self, mode: str) -> Iterator[Opened]:
        """The directory with the tree, fresh victims and nothing else in it."""
        if self._switch_policy:
            self._switch_policy(self.scratch, DEFERRED if mode == CONTROL else mode)
        make_victims(self.scratch, self._victims)
        drop_dentries()
        try:
            yield Opened(self.scratch, self._read_statistics)
        finally:
            for entry in self.scratch.iterdir():
                if entry.name == "tree":
                    continue
                if entry.is_dir():
                    shutil.rmtree(entry)
                else:
                    entry.unlink()

    def close(self) -> None:
        """Remove the directory of the benchmark."""
        shutil.rmtree(self.scratch)
