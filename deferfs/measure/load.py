"""What part of the processors went to programs that have nothing to do with a pass.

Own are this process with everything that it has started, and the processes that were reported (daemons and disks, which
leave the tree of processes). The kernel's threads are nobody's: they write back, free and commit for the filesystems
that are measured. What a hypervisor took away counts as foreign.

A process that ends takes its account along. That of a child goes to its parent, which has waited for it; for those
reported, a thread notes the account every `LOOK_SECONDS`, so that no more than the time since then is missing.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

FOREIGN_FRACTION: Final = 0.1
"""Above this part of all processors used by others, a pass was not alone on the machine."""
LOOK_SECONDS: Final = 0.05
KERNEL_THREAD: Final = 0x0020_0000
"""PF_KTHREAD in the flags of /proc/PID/stat."""


class Account(msgspec.Struct, frozen=True):
    """One line of /proc/PID/stat: processor seconds of its own, and of children that were waited for. `started` tells
    it from a later process of the same number."""

    started: int
    kernel_thread: bool
    own: float
    children: float


def parse_account(text: str) -> Account:
    """The account in the text of a `stat` file."""
    fields = text.rpartition(")")[2].split()
    tick = os.sysconf("SC_CLK_TCK")
    user, system, children_user, children_system = (int(field) / tick for field in fields[11:15])
    return Account(
        int(fields[19]), bool(int(fields[6]) & KERNEL_THREAD), user + system, children_user + children_system
    )


def account_of(pid: int, proc: Path) -> Account | None:
    """The account of process `pid`; None when it is gone."""
    try:
        return parse_account((proc / str(pid) / "stat").read_text(errors="replace"))
    except OSError:
        return None


def descendants(pid: int, proc: Path) -> Iterator[int]:
    """All processes below `pid` that are there now."""
    waiting = [pid]
    while waiting:
        try:
            lists = [task / "children" for task in (proc / str(waiting.pop()) / "task").iterdir()]
            found = [int(word) for path in lists for word in path.read_text().split()]
        except OSError:
            continue
        yield from found
        waiting += found


class OwnProcesses:
    """Processor time of everything that belongs to us. `note` a process that leaves our tree; `close` in the end."""

    def __init__(self, proc: Path = Path("/proc"), pid: int | None = None) -> None:
        self._proc = proc
        self._pid = os.getpid() if pid is None else pid
        self._noted: dict[int, Account | None] = {}
        self._children: set[int] = set()
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    def note(self, pid: int) -> None:
        """Process `pid` is ours."""
        with self._lock:
            self._noted[pid] = account_of(pid, self._proc)
            if pid in set(descendants(self._pid, self._proc)):
                self._children.add(pid)  # its account goes to us when it ends
        if self._thread is None:
            self._thread = threading.Thread(target=self._look_again, daemon=True, name="deferfs-bench-load")
            self._thread.start()

    def seconds(self) -> float:
        """Processor time of all of them so far; never less than before."""
        with self._lock:
            self._look()
            tree = [self._pid, *descendants(self._pid, self._proc)]
            accounts = [account_of(pid, self._proc) for pid in tree]
            noted = [one for pid, one in self._noted.items() if pid not in self._children]
            return sum(one.own + one.children for one in (*accounts, *noted) if one is not None)

    def close(self) -> None:
        """End the thread."""
        self._end.set()
        if self._thread is not None:
            self._thread.join()

    def _look_again(self) -> None:
        while not self._end.wait(LOOK_SECONDS):
            with self._lock:
                self._look()

    def _look(self) -> None:
        for pid, before in self._noted.items():
            now = account_of(pid, self._proc)
            if now is not None and (before is None or now.started == before.started):
                self._noted[pid] = now


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
