"""A process that saves the accounts of others, so that they are known after those have ended.

It is no thread, as scenarios fork processes: only a process with one thread does that safely. It is forked
before the scenario opens anything, so that it holds no loop device or pipe open; and it ends with its parent.
"""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path
from typing import Final, NoReturn

import msgspec

from deferfs.measure.host.accounts import Account, account_of
from deferfs.measure.host.interrupts import NUMBERS

LOOK_SECONDS: Final = 0.05
ANSWER_SECONDS_MAX: Final = 10.0
_ANSWER: Final = b"?"
_END: Final = b"."


class Watcher:
    """`add` processes, ask for their `accounts`; `close` in the end."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        orders_out, self._orders = os.pipe()
        answers_fd, answers_in = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            _watch(orders_out, answers_in, proc)
        os.close(orders_out)
        os.close(answers_in)
        self._answers = os.fdopen(answers_fd, "rb")

    def add(self, pid: int) -> None:
        """Save the account of process `pid` from now on."""
        self._order(b"%d" % pid)

    def accounts(self) -> dict[int, Account]:
        """The last saved account of each process."""
        if not self._order(_ANSWER) or not select.select([self._answers], [], [], ANSWER_SECONDS_MAX)[0]:
            return {}
        line = self._answers.readline()
        return msgspec.json.decode(line, type=dict[int, Account]) if line else {}

    def close(self) -> None:
        """End the watcher, and wait for it."""
        self._order(_END)  # needed because a process forked since may hold the pipe open
        os.close(self._orders)
        self._answers.close()
        os.waitpid(self.pid, 0)

    def _order(self, word: bytes) -> bool:
        try:
            os.write(self._orders, word + b"\n")
        except BrokenPipeError:
            return False  # the watcher was killed: missing time then counts as foreign
        return True


def _watch(orders: int, answers: int, proc: Path) -> NoReturn:
    """Run until the parent closes its end of the pipe, or dies."""
    try:
        for number in NUMBERS:
            signal.signal(number, signal.SIG_IGN)  # the parent decides
        first, last = sorted((orders, answers))
        for low, high in ((3, first), (first + 1, last), (last + 1, os.sysconf("SC_OPEN_MAX"))):
            os.closerange(low, high)
        accounts: dict[int, Account | None] = {}
        while True:
            words: list[bytes] = []
            if select.select([orders], [], [], LOOK_SECONDS)[0]:
                words = os.read(orders, 1 << 16).split()
                if not words or _END in words:
                    os._exit(0)
            for word in words:
                if word != _ANSWER:
                    accounts.setdefault(int(word), None)
            _look(accounts, proc)
            for _ in range(words.count(_ANSWER)):
                known = {pid: account for pid, account in accounts.items() if account is not None}
                os.write(answers, msgspec.json.encode(known) + b"\n")
    finally:
        os._exit(0)


def _look(accounts: dict[int, Account | None], proc: Path) -> None:
    for pid, before in accounts.items():
        now = account_of(pid, proc)
        if now is not None and (before is None or now.started == before.started):
            accounts[pid] = now
