"""What the daemon has resident, beside what it promises: see docs/reclaim.md."""

from __future__ import annotations

from dataclasses import dataclass

from deferfs.limits import DIRECTORY_COST_BYTES, INODE_COST_BYTES, RESIDENT_BASE_BYTES
from deferfs.mount.host.process_status import bytes_of, status_of


@dataclass(frozen=True, slots=True)
class Resident:
    """Bytes that the kernel counts for this process (VmRSS, VmHWM); 0 where it does not tell."""

    now_bytes: int
    highest_bytes: int


def resident(*, proc: str = "/proc") -> Resident:
    """Of this process."""
    fields = status_of("self", proc=proc)
    return Resident(bytes_of(fields, "VmRSS"), bytes_of(fields, "VmHWM"))


def promised_bytes(budget_bytes: int, inodes_highest: int, directories_highest: int) -> int:
    """What the highest resident size stays below: the budget, a constant for the interpreter and what no account holds,
    and the in-core inodes, of which the kernel may hold more than the budget. `inodes_highest`, `directories_highest`:
    the most there were."""
    inodes_bytes = inodes_highest * INODE_COST_BYTES + directories_highest * DIRECTORY_COST_BYTES
    return budget_bytes + RESIDENT_BASE_BYTES + inodes_bytes
