"""What a filesystem went through: a state for each operation, and from where on in the log of the disk each was
durable.

**Invariant:** `positions` and the positions of `floors` never fall; a position counts the records of the disk's log.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

from deferfs.crash.content import CHUNK_BYTES
from deferfs.crash.model import Nodes


@dataclass(frozen=True, slots=True)
class Attempt:
    """File data that was about to be written in place when the log had `position` records.

    It may be on the disk from there on, whether or not the operation went through.
    """

    position: int
    ino: int
    offset: int
    data: bytes

    def touches(self, start: int, stop: int) -> bool:
        return self.offset < stop and start < self.offset + len(self.data)


class History:
    """States 0 .. n: state i is what operations 1 .. i made. State 0 is durable from the start."""

    def __init__(self, start: Nodes) -> None:
        self.states: list[Nodes] = [start]
        self.positions: list[int] = [0]
        """`positions[i]`: records in the log when state i came about."""
        self.floors: list[tuple[int, int]] = [(0, 0)]
        """(records in the log, state): from there on a crash must not lose that state."""
        self.attempts: list[Attempt] = []

    @property
    def last(self) -> int:
        """The number of the newest state."""
        return len(self.states) - 1

    def applied(self, position: int, nodes: Nodes) -> None:
        """An operation led to `nodes`."""
        self.positions.append(position)
        self.states.append(nodes)

    def attempt(self, position: int, ino: int, offset: int, data: bytes) -> None:
        """An operation is about to write these bytes of file data."""
        self.attempts.append(Attempt(position, ino, offset, data))

    def durable(self, position: int, state: int) -> None:
        """`state` was made durable when the log had `position` records."""
        self.floors.append((position, max(state, self.floors[-1][1])))

    def floor(self, position: int) -> int:
        """The oldest state that a crash after `position` records may lead back to."""
        index = bisect_right(self.floors, position, key=lambda floor: floor[0]) - 1
        return self.floors[index][1]

    def ceiling(self, position: int) -> int:
        """The newest state that can be on a disk whose log has `position` records."""
        return bisect_right(self.positions, position) - 1

    def allowed(self, position: int) -> range:
        """The states that may be found after a crash, oldest first."""
        return range(self.floor(position), self.ceiling(position) + 1)

    def chunks_between(self, ino: int, number: int, state: int, position: int) -> list[bytes]:
        """The values that a chunk of a file had in `state` or later, up to the crash, oldest first, none of them
        twice in a row. Attempts whose operation was not through are among them, each on top of what was there.
        """
        found: list[bytes] = []
        for index in range(state, self.ceiling(position) + 1):
            node = self.states[index].get(ino)
            if node is not None:
                chunk = node.content.chunk(number)
                if not found or found[-1] is not chunk:
                    found.append(chunk)
        start = number * CHUNK_BYTES
        since = self.positions[state]
        for attempt in self.attempts:
            if attempt.ino == ino and since <= attempt.position <= position:
                if attempt.touches(start, start + CHUNK_BYTES):
                    found.append(_laid_over(found[-1], start, attempt))
        return found


def _laid_over(chunk: bytes, start: int, attempt: Attempt) -> bytes:
    low = max(start, attempt.offset)
    high = min(start + len(chunk), attempt.offset + len(attempt.data))
    new = attempt.data[low - attempt.offset : high - attempt.offset]
    return chunk[: low - start] + new + chunk[high - start :]
