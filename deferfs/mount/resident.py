"""What the daemon has resident, beside what it promises: see docs/reclaim.md."""

from __future__ import annotations

from dataclasses import dataclass

from deferfs.limits import INODE_COST_BYTES, RESIDENT_BASE_BYTES


@dataclass(frozen=True, slots=True)
class Resident:
    """Bytes that the kernel counts for this process (VmRSS, VmHWM); 0 where it does not tell."""

    now_bytes: int
    highest_bytes: int


def resident(*, path: str = "/proc/self/status") -> Resident:
    """As proc(5) has it."""
    found = {"VmRSS": 0, "VmHWM": 0}
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name in found:
                    found[name] = int(value.split()[0]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return Resident(found["VmRSS"], found["VmHWM"])


def promised_bytes(budget_bytes: int, inodes_highest: int) -> int:
    """What the highest resident size stays below: the budget, a constant for the interpreter and what no account holds,
    and the in-core inodes, of which the kernel may hold more than the budget. `inodes_highest`: the most there were."""
    return budget_bytes + RESIDENT_BASE_BYTES + inodes_highest * INODE_COST_BYTES
