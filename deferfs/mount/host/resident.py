"""Resident memory of the daemon, and the bound that it promises: see docs/reclaim.md."""

from __future__ import annotations

from dataclasses import dataclass

from deferfs.limits import DIRECTORY_COST_BYTES, INODE_COST_BYTES, RESIDENT_BASE_BYTES
from deferfs.mount.host.process_status import bytes_of, status_of


@dataclass(frozen=True, slots=True)
class Resident:
    """Resident bytes of this process (VmRSS, VmHWM); 0 when not available."""

    now_bytes: int
    highest_bytes: int


def resident(*, proc: str = "/proc") -> Resident:
    """Resident memory of this process."""
    fields = status_of("self", proc=proc)
    return Resident(bytes_of(fields, "VmRSS"), bytes_of(fields, "VmHWM"))


def promised_bytes(budget_bytes: int, inodes_highest: int, directories_highest: int) -> int:
    """The bound on peak resident memory: the budget, a constant for the interpreter and what no account covers, and
    the in-core inodes, of which the kernel may pin more than the budget. `inodes_highest`, `directories_highest`:
    their peak numbers."""
    inodes_bytes = inodes_highest * INODE_COST_BYTES + directories_highest * DIRECTORY_COST_BYTES
    return budget_bytes + RESIDENT_BASE_BYTES + inodes_bytes
