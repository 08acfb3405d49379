"""Killing the daemon in the middle of a program's work, and what must be there afterwards."""

from __future__ import annotations

import hashlib
import os
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import pytest

from tests.mounted import sources
from tests.mounted.polling import wait_until
from tests.mounted.scratch import Scratch

PROGRAMS = Path(__file__).parent / "programs"
HELD = 40
"""Files deleted but still open when the daemon is killed: that many orphans are left for sure."""


def interrupt(
    scratch: Scratch,
    program: Sequence[object],
    far_enough: Callable[[], bool],
    *,
    fed: bytes = b"",
    cwd: Path | None = None,
) -> None:
    """Start `program`, and kill the daemon in the middle of it.

    The program must be one that does not end by itself: it works for ever, or reads what to do from its standard input.
    That stays open behind `fed` until the daemon is dead, so there is always more to do, however quick the program is.
    """
    process = subprocess.Popen(
        [str(word) for word in program],
        env=sources.GIT_ENVIRONMENT,
        cwd=cwd,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    killed = threading.Event()

    def feed() -> None:
        with suppress(BrokenPipeError), process.stdin or nullcontext() as file:
            if file is not None:
                file.write(fed)
                file.flush()
            killed.wait()

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        wait_until(lambda: far_enough() or process.poll() is not None, "the program to get somewhere")
        assert process.poll() is None, "it ended before it could be interrupted"
        scratch.kill()
        killed.set()
        assert process.wait(60) != 0
    finally:
        process.kill()
        process.wait()
        killed.set()
        feeder.join()


def after_requests(scratch: Scratch, count: int, *names: str) -> Callable[[], bool]:
    """Whether so many more of these requests have been answered."""
    start = scratch.requests(*names)
    return lambda: scratch.requests(*names) - start >= count


@contextmanager
def deleted_but_open(mount: Path) -> Iterator[None]:
    """Orphans whose deletion is durable."""
    files = [(mount / f"held{number}").open("wb") for number in range(HELD)]
    for file in files:
        file.write(bytes(100_000))
        file.flush()
        os.unlink(file.name)
    try:
        yield
    finally:
        for file in files:
            try:
                file.close()
            except OSError:  # the daemon is dead
                pass


def recover(scratch: Scratch) -> Path:
    """Detach what the dead daemon left; the image is sound before and after recovery, and no orphan stays."""
    with pytest.raises(OSError, match="not connected"):
        os.statvfs(scratch.mountpoint)
    scratch.detach()
    assert scratch.check()["orphans"] >= HELD
    scratch.mount()
    wait_until(lambda: scratch.statistics().space.orphans == 0, "orphans to be gone")
    assert scratch.statistics().inodes.quarantined == 0
    scratch.unmount()
    assert scratch.check()["orphans"] == 0
    return scratch.mount()


def assert_as_noted(notes: Path, directory: Path, *, least: int = 10) -> None:
    """Every file whose last note is a digest has that content; at least so many files were noted."""
    last = dict(line.split(" ", 1) for line in notes.read_text().splitlines())
    assert len(last) >= least
    for name, note in last.items():
        content = (directory / name).read_bytes()
        if note != "changing":
            assert f"{len(content)} {hashlib.sha256(content).hexdigest()}" == note, name
