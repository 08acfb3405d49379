"""A scratch image, the place it is mounted on, and the commands a user has for both."""

from __future__ import annotations

import io
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from deferfs.cli import main
from deferfs.contract.requests import Answer, Query, Set
from deferfs.contract.statistics import Statistics
from deferfs.mount.control import client
from tests import preloaded, side_by_side
from tests.mounted.polling import wait_until

COMMAND_SECONDS_MAX = 110.0
"""Below the timeout of a test, so that the failure names the command."""
EXIT_SECONDS_MAX = 60.0


def run(
    *command: str | Path,
    code: int | None = 0,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
    seconds: float = COMMAND_SECONDS_MAX,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; its exit code must be `code` (None: any)."""
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        errors="backslashreplace",
        check=False,
        cwd=cwd,
        env=env,
        timeout=seconds,
        stdin=subprocess.DEVNULL,
    )
    if code is not None:
        said = f"{done.stdout[-3000:]}{done.stderr[-3000:]}"
        assert done.returncode == code, f"{' '.join(map(str, command))}: {done.returncode}\n{said}"
    return done


def deferfs(*arguments: str | Path, code: int | None = 0, afresh: bool = False) -> subprocess.CompletedProcess[str]:
    """Run the `deferfs` command: inside of this process, which is quick, unless it mounts. The daemon is the installed
    one, whose core is compiled. A mount is a process of its own: `afresh`, one as a user starts it, else one with the
    imports done (tests/preloaded.py); the daemon of a mount that outlives a test is always started afresh.
    """
    words = [str(word) for word in arguments]
    if words[0] == "mount" and (afresh or not preloaded.may_run()):
        return run(sys.executable, "-P", "-m", "deferfs", *words, code=code)
    done = preloaded.run(words, COMMAND_SECONDS_MAX) if words[0] == "mount" else _inside(words)
    assert code in (None, done.returncode), f"deferfs {' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done


def _inside(words: list[str]) -> subprocess.CompletedProcess[str]:
    output, errors = (io.TextIOWrapper(io.BytesIO(), errors="backslashreplace") for _ in range(2))
    with redirect_stdout(output), redirect_stderr(errors):
        code = main.run(words)
    return subprocess.CompletedProcess(words, code, _written(output), _written(errors))


def _written(text: io.TextIOWrapper) -> str:
    text.seek(0)
    return text.read()


def drop_kernel_caches() -> None:
    """Clean pages, dentries and inodes of the whole machine: for what is mounted, the kernel sends FORGETs."""
    side_by_side.check_alone("dropping the kernel's caches")
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
    except OSError as error:
        pytest.skip(f"the kernel's caches cannot be dropped here: {error}")


@dataclass
class Scratch:
    """One image and its mountpoint, both below a test's own directory."""

    directory: Path
    evict: str = "deferred"
    size: str = "512M"
    format_options: Sequence[str] = ()
    afresh: bool = False
    """Daemons start as those of a user, for tests of what a process takes."""
    image: Path = field(init=False)
    mountpoint: Path = field(init=False)
    log: Path = field(init=False)
    was_inline: bool = field(default=False, init=False)
    """Switched to it at some time."""

    def __post_init__(self) -> None:
        self.image = self.directory / "image"
        self.mountpoint = self.directory / "mnt"
        self.log = self.directory / "log"
        self.mountpoint.mkdir(parents=True)
        deferfs("mkfs", "-q", self.image, "--size", self.size, *self.format_options)

    # --- mount and unmount ---
    def mount(self, *options: str) -> Path:
        """Mount with this scratch's evict policy and more options; the mountpoint."""
        words = ",".join((f"evict={self.evict}", f"log={self.log}", *options))
        deferfs("mount", self.image, self.mountpoint, "-o", words, afresh=self.afresh)
        return self.mountpoint

    @property
    def is_mounted(self) -> bool:
        return any(
            line.split()[4] == str(self.mountpoint) for line in Path("/proc/self/mountinfo").read_text().splitlines()
        )

    def unmount(self) -> None:
        """Unmount as `deferfs umount` does; the image is clean then. Deferred, nothing has waited in reclaim, and the
        waits of the daemon could never have closed a cycle."""
        if self.evict == "deferred" and not self.was_inline and self.is_mounted:
            found = self.statistics().reclaim_context
            assert not found.violations
            assert not found.lock_order_cycles, self.ask(Set(key="lockdep", value="report"))
        deferfs("umount", self.mountpoint)

    def check(self) -> dict[str, Any]:
        """`fsck -n` finds nothing, and the daemons so far have complained of nothing; fsck's counts."""
        done = deferfs("fsck", "-n", "--json", self.image, code=None)
        assert done.returncode == 0, done.stdout + done.stderr
        assert not self.complaints()
        counts: dict[str, Any] = json.loads(done.stdout)["counts"]
        return counts

    def unmount_and_check(self) -> None:
        self.unmount()
        self.check()

    def remount(self, *options: str) -> Path:
        """Unmount, check the image, mount it again: nothing of it is in the kernel's caches now."""
        self.unmount_and_check()
        return self.mount(*options)

    def complaints(self) -> list[str]:
        """What the daemons have logged as errors."""
        if not self.log.exists():
            return []
        lines = self.log.read_text(errors="replace").splitlines()
        return [line for line in lines if " ERROR: " in line or line.startswith(("Traceback", " "))]

    # --- the running mount ---
    def statistics(self) -> Statistics:
        """What `deferfs stat` tells."""
        return client.statistics(client.find_mount(str(self.mountpoint)))

    def ask(self, request: Query[Answer]) -> Answer:
        """Send a request to the control socket, without the cost of a new process."""
        return client.ask(client.find_mount(str(self.mountpoint)), request)

    def requests(self, *names: str) -> int:
        """How many of these FUSE requests the daemon has answered."""
        counts = self.statistics().requests
        return sum(counts[name].count for name in names if name in counts)

    def control(self, *settings: str) -> None:
        self.was_inline = self.was_inline or "evict=inline" in settings
        deferfs("ctl", self.mountpoint, *settings)

    def sync(self, *, lost_writes: bool = False) -> None:
        """`lost_writes`: there may have been errors before, which sync reports."""
        deferfs("sync", self.mountpoint, code=None if lost_writes else 0)

    def drain(self, *, lost_writes: bool = False) -> None:
        """No orphan is left. The kernel's FORGETs come when it likes, hence the polling."""

        def drained() -> bool:
            self.control("gc=flush")
            return self.statistics().space.orphans == 0

        wait_until(drained, "orphans to be gone")
        self.sync(lost_writes=lost_writes)

    def space(self) -> tuple[int, int, int, int, int]:
        """What statfs tells that must be the same again once everything is deleted."""
        found = os.statvfs(self.mountpoint)
        return found.f_blocks, found.f_bfree, found.f_bavail, found.f_files, found.f_ffree

    @property
    def pid(self) -> int:
        return self.statistics().pid

    @contextmanager
    def daemon_exit(self) -> Iterator[None]:
        """What happens inside makes the daemon end; return when it has."""
        process = os.pidfd_open(self.pid)
        try:
            yield
            assert select.select([process], [], [], EXIT_SECONDS_MAX)[0], "the daemon goes on"
        finally:
            os.close(process)

    def kill(self) -> None:
        """`kill -9` the daemon. The dead mount stays."""
        with self.daemon_exit():
            os.kill(self.pid, signal.SIGKILL)

    def detach(self) -> None:
        """`umount -l`, as after a crash of the daemon."""
        run("umount", "-l", self.mountpoint)

    def end(self) -> None:
        """Leave nothing behind, whatever state a failed test is in."""
        if not self.is_mounted:
            return
        try:
            self.kill()
        except Exception:  # it has died already
            pass
        self.detach()
