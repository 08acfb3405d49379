"""The daemon behind a mount that is measured: asked, set, and reported as ours."""

from __future__ import annotations

from pathlib import Path

from deferfs.contract.requests import GetStatistics, Set
from deferfs.contract.statistics import Statistics
from deferfs.measure.scenario import Ask, Surroundings


class Daemon:
    """What serves the deferfs at `root`."""

    def __init__(self, root: Path, surroundings: Surroundings) -> None:
        self._root = root
        self._surroundings = surroundings

    def statistics(self) -> Statistics:
        """What it says about itself."""
        return statistics_of(self._root, self._surroundings.ask)

    def set(self, key: str, value: str) -> None:
        """As `deferfs ctl KEY=VALUE`."""
        self._surroundings.ask(self._root, Set(key=key, value=value))

    def own(self) -> int:
        """Its pid, which is reported as ours."""
        pid = self.statistics().pid
        self._surroundings.own(pid)
        return pid


def statistics_of(root: Path, ask: Ask) -> Statistics:
    """What the daemon behind the mountpoint `root` says about itself."""
    return ask(root, GetStatistics())


def daemon_of(root: Path, surroundings: Surroundings) -> int:
    """The process that serves the mount, reported as ours."""
    return Daemon(root, surroundings).own()
