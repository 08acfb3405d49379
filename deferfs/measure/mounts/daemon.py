"""The daemon of a mount under test: its statistics, its settings, and its pid."""

from __future__ import annotations

from pathlib import Path

from deferfs.contract.requests import GetStatistics, Set
from deferfs.contract.statistics import Statistics
from deferfs.measure.scenario import Ask, Surroundings


class Daemon:
    """The daemon that serves the deferfs at `root`."""

    def __init__(self, root: Path, surroundings: Surroundings) -> None:
        self._root = root
        self._surroundings = surroundings

    def statistics(self) -> Statistics:
        """Current statistics of the daemon."""
        return statistics_of(self._root, self._surroundings.ask)

    def set(self, key: str, value: str) -> None:
        """As `deferfs ctl KEY=VALUE`."""
        self._surroundings.ask(self._root, Set(key=key, value=value))

    def own(self) -> int:
        """Pid of the daemon; registered as a process of the benchmark."""
        pid = self.statistics().pid
        self._surroundings.own(pid)
        return pid


def statistics_of(root: Path, ask: Ask) -> Statistics:
    """The statistics of the daemon behind the mountpoint `root`."""
    return ask(root, GetStatistics())


def daemon_of(root: Path, surroundings: Surroundings) -> int:
    """The process that serves the mount, reported as ours."""
    return Daemon(root, surroundings).own()
