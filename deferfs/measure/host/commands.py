"""Commands that the scenarios run: `deferfs` itself, and tools of the system."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from deferfs.errors import DeferfsError, EnvironmentProblem
from deferfs.measure.host.preloaded import Preloaded

COMMAND_SECONDS_MAX: Final = 120


def run_command(
    command: Sequence[str], seconds_max: float = COMMAND_SECONDS_MAX, enter: Callable[[], None] | None = None
) -> str:
    """Run a command to its end and return its output; the last line of stderr becomes the error. `enter` is called in
    the new process before the command starts, e.g. to join a cgroup.
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
            start_new_session=True,  # Ctrl-C must reach only the benchmark, which then unmounts in order
        )
    except OSError as error:
        raise EnvironmentProblem(f"cannot run {command[0]}: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise _too_long(command, seconds_max) from error
    return _output(command, done)


def _output(command: Sequence[str], done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise DeferfsError(f"`{' '.join(command)}` failed with code {done.returncode}: {said}")
    return done.stdout


def _too_long(command: Sequence[str], seconds_max: float) -> DeferfsError:
    return DeferfsError(f"`{' '.join(command)}` did not end in {seconds_max:.0f} s")


_preloaded: Preloaded | None = None


@contextmanager
def preloaded_commands() -> Iterator[None]:
    """In the block, `run_deferfs` spares the imports (see `deferfs.measure.host.preloaded`). Blocks in it share the
    process."""
    global _preloaded
    if _preloaded is not None:
        yield
        return
    _preloaded = Preloaded()
    try:
        yield
    finally:
        _preloaded.close()
        _preloaded = None


def run_deferfs(
    words: Sequence[str], seconds_max: float = COMMAND_SECONDS_MAX, enter: Callable[[], None] | None = None
) -> str:
    """As `run_command`, the command `deferfs WORDS`. With `enter` it is always a process that starts afresh: a cgroup
    pays for what its processes import."""
    command = [*deferfs_command(), *words]
    if _preloaded is None or _preloaded.closed or enter is not None:
        return run_command(command, seconds_max, enter)
    try:
        done = _preloaded.run(words, seconds_max)
    except TimeoutError as error:
        raise _too_long(command, seconds_max) from error
    except OSError as error:
        raise EnvironmentProblem(f"cannot run {command[0]}: {error}") from error
    return _output(command, done)


def deferfs_command() -> list[str]:
    """The command that starts the `deferfs` of this interpreter, installed or not."""
    installed = Path(sys.executable).with_name("deferfs")
    if installed.exists():
        return [str(installed)]
    return [sys.executable, "-c", "from deferfs.cli.entry import main; main()"]


def copy_image(source: Path, destination: Path) -> None:
    """Copy an image, sharing its blocks where the filesystem can, preserving holes, and sync it."""
    run_command(["cp", "--sparse=always", "--reflink=auto", str(source), str(destination)])
    descriptor = os.open(destination, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
