"""Tests that mount, in several processes (pytest-xdist) at once.

Each process has a mount namespace of its own: one that was made while a test of another process has something mounted
would otherwise copy that mount, and keep it busy. A test marked `machine` does something to the whole machine (it drops
the kernel's caches, it syncs every filesystem): it runs while no other test that mounts does. All others run side by
side.
"""

from __future__ import annotations

import fcntl
import os
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

import pytest

from deferfs.mount.host import syscalls

MARK: Final = "machine"


class Turns:
    """Two locks in `directory`, which all processes of one run share.

    `floor` is held by each test that runs: shared, or exclusively by one that wants to be alone. `gate` is held only
    while a test waits for the floor, so that those behind it cannot keep one waiting that wants to be alone.
    """

    def __init__(self, directory: Path) -> None:
        self._gate = os.open(directory / "gate", os.O_RDWR | os.O_CREAT, 0o600)
        self._floor = os.open(directory / "floor", os.O_RDWR | os.O_CREAT, 0o600)

    def close(self) -> None:
        """Let go of the files."""
        os.close(self._gate)
        os.close(self._floor)

    @contextmanager
    def turn(self, *, alone: bool) -> Iterator[None]:
        """Wait until this test may run. The unlocking is explicit: a process that the test leaves has copies of the
        descriptors."""
        fcntl.flock(self._gate, fcntl.LOCK_EX)
        try:
            fcntl.flock(self._floor, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        finally:
            fcntl.flock(self._gate, fcntl.LOCK_UN)
        try:
            yield
        finally:
            fcntl.flock(self._floor, fcntl.LOCK_UN)


def put_in_order(items: list[pytest.Item]) -> None:
    """Modules with tests that run alone come first: tests that do not mount run beside them. Then those of many tests,
    so that the last to end are short. A skipped test is none."""
    counts = Counter(item.path for item in items if item.get_closest_marker("skip") is None)
    alone = {item.path for item in items if item.get_closest_marker(MARK) and not item.get_closest_marker("skip")}
    items.sort(key=lambda item: (item.path not in alone, -counts[item.path], item.path))


class SideBySide:
    """The pytest plugin of a process that runs tests: the only one (`turns` is None), or one of several."""

    def __init__(self, turns: Turns | None) -> None:
        self._turns = turns

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Around the whole test with its fixtures, and before its time is taken."""
        if item.get_closest_marker("mounted") is None:
            return (yield)
        alone = item.get_closest_marker(MARK) is not None
        with ExitStack() as stack:
            if self._turns is not None:
                stack.enter_context(self._turns.turn(alone=alone))
            if alone:
                stack.enter_context(_has_the_machine())
            return (yield)

    def pytest_unconfigure(self) -> None:
        """The run is over."""
        if self._turns is not None:
            self._turns.close()


def join(config: pytest.Config, directory: Path | None) -> None:
    """Make this process the only one (None), or one of several, which all name the same `directory`."""
    if directory is not None:
        with suppress(PermissionError):  # then it cannot mount either
            syscalls.leave_mount_namespace()
    config.pluginmanager.register(SideBySide(None if directory is None else Turns(directory)))


_running: list[str] = []


@contextmanager
def _has_the_machine() -> Iterator[None]:
    _running.append(MARK)
    try:
        yield
    finally:
        _running.pop()


def check_alone(what: str) -> None:
    """Fail a test that does `what` to the whole machine, and is not marked as one that does."""
    if not _running:
        pytest.fail(f"{what} needs the mark `{MARK}`: it reaches what other tests have mounted")
