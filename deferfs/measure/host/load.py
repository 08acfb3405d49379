"""What part of the processors went to programs that have nothing to do with a pass.

Own are this process with everything that it has started, and the processes that were reported (daemons and disks, which
leave the tree of processes). The kernel's threads are nobody's: they write back, free and commit for the filesystems
that are measured. What a hypervisor took away counts as foreign.

A process that ends takes its account along. That of a child goes to its parent, which has waited for it; for those
reported, a watcher notes the account every `LOOK_SECONDS` (`watcher`), so that no more than the time since then is
missing.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

from deferfs.measure.host.accounts import Account, account_of, descendants
from deferfs.measure.host.watcher import Watcher

FOREIGN_FRACTION: Final = 0.1
"""Above this part of all processors used by others, a pass was not alone on the machine."""


class OwnProcesses:
    """Processor time of everything that belongs to us. `note` a process that leaves our tree. `watcher`: what looks at
    those between two calls of `seconds`, if anything does.
    """

    def __init__(self, watcher: Watcher | None = None, proc: Path = Path("/proc"), pid: int | None = None) -> None:
        self._watcher, self._proc = watcher, proc
        self._pid = os.getpid() if pid is None else pid
        self._noted: dict[int, Account | None] = {}
        self._children: set[int] = set()

    def note(self, pid: int) -> None:
        """Process `pid` is ours."""
        self._noted[pid] = account_of(pid, self._proc)
        if pid in set(descendants(self._pid, self._proc)):
            self._children.add(pid)  # its account goes to us when it ends
        elif self._watcher is not None:
            self._watcher.add(pid)

    def seconds(self) -> float:
        """Processor time of all of them so far; never less than before."""
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
    """How much of the processors goes to others than `own`, from the making on."""

    def __init__(self, own: OwnProcesses, proc: Path = Path("/proc")) -> None:
        self._own, self._proc = own, proc
        self._start = time.monotonic()
        self._kernel = self._kernel_threads()
        self._used = self._used_seconds()

    def fraction(self, elapsed: float | None = None) -> float:
        """Part of all processors since the making: 0 alone, 1 when there was nothing left for us."""
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
        """What the kernel's threads took since the making."""
        seconds = 0.0
        for pid, now in self._kernel_threads().items():
            before = self._kernel.get(pid)
            known = before is not None and before.started == now.started
            seconds += now.own - (before.own if known and before is not None else 0.0)
        return seconds
