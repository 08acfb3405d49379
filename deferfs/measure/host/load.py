"""The fraction of the processors used by programs that do not belong to a pass.

Our own processes are this one with all its descendants, and those reported (daemons and disks, which leave the process
tree). Kernel threads count for neither side: they write back, free and commit for the filesystems under test. Time
stolen by a hypervisor counts as foreign.

A process that ends takes its account along. That of a child goes to its parent, which has waited for it; for reported
processes, a watcher saves the account every `LOOK_SECONDS` (`watcher`), so that at most the time since then is missing.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

from deferfs.measure.host.accounts import Account, account_of, descendants
from deferfs.measure.host.watcher import Watcher

FOREIGN_FRACTION: Final = 0.1
"""When others use more than this fraction of all processors, a pass counts as disturbed."""


class OwnProcesses:
    """Processor time of all our processes. `note` those that leave our process tree. `watcher` saves the accounts of
    these between two calls of `seconds`, if given.
    """

    def __init__(self, watcher: Watcher | None = None, proc: Path = Path("/proc"), pid: int | None = None) -> None:
        self._watcher, self._proc = watcher, proc
        self._pid = os.getpid() if pid is None else pid
        self._noted: dict[int, Account | None] = {}
        self._children: set[int] = set()

    def note(self, pid: int) -> None:
        """Record process `pid` as ours."""
        self._noted[pid] = account_of(pid, self._proc)
        if pid in set(descendants(self._pid, self._proc)):
            self._children.add(pid)  # its account is added to ours when it ends
        elif self._watcher is not None:
            self._watcher.add(pid)

    def seconds(self) -> float:
        """Their processor time so far; non-decreasing."""
        watched = self._watcher.accounts() if self._watcher is not None else {}
        for pid, before in self._noted.items():
            for now in (watched.get(pid), account_of(pid, self._proc)):
                if now is not None and (before is None or now.started == before.started):
                    self._noted[pid] = before = now
        tree = [self._pid, *descendants(self._pid, self._proc)]
        accounts = [account_of(pid, self._proc) for pid in tree]
        noted = [one for pid, one in self._noted.items() if pid not in self._children]
        return sum(one.own + one.children for one in (*accounts, *noted) if one is not None)


class ForeignLoad:
    """The fraction of the processors used by others than `own`, since construction."""

    def __init__(self, own: OwnProcesses, proc: Path = Path("/proc")) -> None:
        self._own, self._proc = own, proc
        self._start = time.monotonic()
        self._kernel = self._kernel_threads()
        self._used = self._used_seconds()

    def fraction(self, elapsed: float | None = None) -> float:
        """Fraction of all processors since construction: 0 for none, 1 when nothing was left for us."""
        seconds = time.monotonic() - self._start if elapsed is None else elapsed
        foreign = self._used_seconds() - self._used - self._kernel_seconds()
        whole = seconds * (os.cpu_count() or 1)
        return min(max(foreign / whole, 0.0), 1.0) if whole else 0.0

    def _used_seconds(self) -> float:
        user, nice, system, _, _, _, _, steal = map(int, (self._proc / "stat").read_text().split()[1:9])
        return (user + nice + system + steal) / os.sysconf("SC_CLK_TCK") - self._own.seconds()

    def _kernel_threads(self) -> dict[int, Account]:
        found = {}
        for entry in os.listdir(self._proc):
            if entry.isdigit():
                account = account_of(int(entry), self._proc)
                if account is not None and account.kernel_thread:
                    found[int(entry)] = account
        return found

    def _kernel_seconds(self) -> float:
        """Processor time of kernel threads since construction."""
        seconds = 0.0
        for pid, now in self._kernel_threads().items():
            before = self._kernel.get(pid)
            known = before is not None and before.started == now.started
            seconds += now.own - (before.own if known and before is not None else 0.0)
        return seconds
