"""Halving the log: the first transaction after which the check finds a problem."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from deferfs.check import Problem, check_image
from deferfs.cli.output import counted
from deferfs.device import Device
from deferfs.errors import ImageError
from deferfs.store.io import run_job
from deferfs.store.past import device_of, look_back, read_history
from deferfs.store.recovery import read_superblock

_PROBLEMS_SHOWN = 20
"""Problems that are printed, at most."""


@dataclass(frozen=True, slots=True)
class Bisection:
    """`first_bad` is the transaction after which the check first finds `problems`, and `last_good` the one before it;
    None where there is none. `oldest` is the oldest state that can be reconstructed, `newest` the newest.
    """

    oldest: int
    newest: int
    last_good: int | None
    first_bad: int | None
    problems: tuple[Problem, ...]
    homes: tuple[int, ...] = ()
    """The blocks that the first bad transaction changed."""

    @property
    def code(self) -> int:
        """0 when nothing is bad, 4 otherwise."""
        return 4 if self.first_bad is not None else 0

    def lines(self) -> list[str]:
        """The result as lines of text."""
        if self.first_bad is None:
            return [f"transactions {self.oldest} to {self.newest}: nothing is wrong after the newest one"]
        if self.last_good is None:
            text = f"already after transaction {self.oldest}, the oldest that can be reconstructed, there are problems"
        else:
            text = f"first bad transaction: {self.first_bad} (after {self.last_good} nothing is wrong)"
        shown = [f"[{problem.number}] {problem.message}" for problem in self.problems[:_PROBLEMS_SHOWN]]
        if self.last_good is not None:
            shown.append(f"it changed blocks {', '.join(map(str, self.homes))}")
        return [text, *shown]

    def as_json(self) -> dict[str, object]:
        """The result as a JSON object."""
        problems = [{"number": p.number, "code": p.code, "message": p.message} for p in self.problems]
        return {
            "oldest": self.oldest,
            "newest": self.newest,
            "last_good": self.last_good,
            "first_bad": self.first_bad,
            "homes": list(self.homes),
            "problems": problems,
        }


def bisect(device: Device, say: Callable[[str], None] | None = None) -> Bisection:
    """Check states of the log by halving. Damage that a later transaction repairs is not seen. ImageError."""
    superblock = run_job(device, read_superblock(device.size))
    history = run_job(device, read_history(superblock))
    newest = superblock.tail_tid + len(history) - 1

    def told(tid: int) -> bool:
        return not run_job(device, look_back(superblock, history, tid)).lost

    def problems(tid: int) -> tuple[Problem, ...]:
        past = run_job(device, look_back(superblock, history, tid))
        try:
            report = check_image(device_of(device, superblock, past))
        except ImageError as error:
            return (Problem(0, "image", str(error), {}),)
        if say is not None:
            say(f"transaction {tid}: {'sound' if report.clean else counted(report.found, 'problem')}")
        return report.problems

    oldest = _first(superblock.tail_tid - 1, newest, told)
    found = problems(newest)
    if not found:
        return Bisection(oldest, newest, newest, None, ())
    seen = {newest: found}

    def bad(tid: int) -> bool:
        seen.setdefault(tid, problems(tid) if tid not in seen else ())
        return bool(seen[tid])

    first = _first(oldest, newest, bad)
    homes = tuple(home for t in history if t.tid == first for home, _ in t.images)
    return Bisection(oldest, newest, first - 1 if first > oldest else None, first, seen[first], homes)


def _first(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """The smallest number from `low` on for which `holds`, which it does for `high` and everything between."""
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return low
