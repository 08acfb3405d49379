"""The history of a filesystem: a state for each operation, and the position in the log of the disk from which on each
was durable.

**Invariant:** `positions` and the positions of `floors` are non-decreasing; a position counts the records of the log.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import NamedTuple

from deferfs.crash.content import CHUNK_BYTES
from deferfs.crash.model import Nodes
from deferfs.device import SECTOR_BYTES


@dataclass(frozen=True, slots=True)
class Attempt:
    """File data about to be written in place when the log had `position` records.

    From there on it may be on the disk, whether or not the operation succeeded. `state` was the newest then.
    """

    position: int
    state: int
    ino: int
    offset: int
    data: bytes


class Piece(NamedTuple):
    """Bytes that a chunk may show from byte `start` on."""

    start: int
    data: bytes

    def covers(self, start: int, stop: int) -> bool:
        return self.start <= start and stop <= self.start + len(self.data)


class History:
    """States 0 .. n: state i is the result of operations 1 .. i. State 0 is durable from the start."""

    def __init__(self, start: Nodes) -> None:
        self.states: list[Nodes] = [start]
        self.positions: list[int] = [0]
        """`positions[i]`: records in the log when state i was reached."""
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
        self.attempts.append(Attempt(position, self.last, ino, offset, data))

    def durable(self, position: int, state: int) -> None:
        """`state` was made durable when the log had `position` records."""
        self.floors.append((position, max(state, self.floors[-1][1])))

    def floor(self, position: int) -> int:
        """The oldest state that a crash after `position` records may recover to."""
        index = bisect_right(self.floors, position, key=lambda floor: floor[0]) - 1
        return self.floors[index][1]

    def ceiling(self, position: int) -> int:
        """The newest state that can be on a disk whose log has `position` records."""
        return bisect_right(self.positions, position) - 1

    def allowed(self, position: int) -> range:
        """The states that may be found after a crash, oldest first."""
        return range(self.floor(position), self.ceiling(position) + 1)

    def pieces(self, ino: int, number: int, state: int, position: int) -> list[Piece]:
        """What a chunk of a file held in `state` or later, up to the crash, oldest first: bytes below the file's size
        at the time, and attempts, successful or not. Ends when the inode is freed: its number may be reused by another
        file, whose bytes must not be visible in this one.
        """
        start = number * CHUNK_BYTES
        found: list[Piece] = []
        newest: bytes | None = None
        gone = len(self.states)
        for index in range(state, self.ceiling(position) + 1):
            node = self.states[index].get(ino)
            if node is None:
                gone = index
                break
            chunk = node.content.chunk(number)
            length = min(CHUNK_BYTES, max(0, node.size - start))
            if chunk is not newest or length != len(found[-1].data):
                newest = chunk
                found.append(Piece(0, chunk[:length]))
        for attempt in self.attempts:
            if attempt.ino == ino and state <= attempt.state < gone and attempt.position <= position:
                low = max(start, attempt.offset)
                high = min(start + CHUNK_BYTES, attempt.offset + len(attempt.data))
                if low < high:
                    found.append(Piece(low - start, attempt.data[low - attempt.offset : high - attempt.offset]))
        return found


def first_foreign_byte(chunk: bytes, pieces: list[Piece]) -> int:
    """The first offset at which `chunk` matches none of the pieces; -1 when there is none."""
    for start in range(0, len(chunk), SECTOR_BYTES):
        sector = chunk[start : start + SECTOR_BYTES]
        end = start + len(sector)
        if any(piece.covers(start, end) and piece.data.startswith(sector, start - piece.start) for piece in pieces):
            continue
        for at in range(start, end):
            if not any(piece.covers(at, at + 1) and piece.data[at - piece.start] == chunk[at] for piece in pieces):
                return at
    return -1
