"""Is a crash image one that the filesystem promised? Recover it, and compare with the history.

The promises (docs/crash-consistency.md):

1. The image is sound: the checker finds nothing wrong, before recovery (with the log replayed in memory) and after.
2. The recovered metadata is the state after some prefix of the operations, not before the last completed commit.
3. Each byte of a file is what it was in that state, or what was written there later: so what was synced and not written
   since is exact, and nobody ever sees the data of another file.
4. What has no name is in the orphan table; inactivating it gives all of its space back.
5. Crashes during recovery, and during the unmount that follows, lead to the same state again.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from typing import ClassVar, Final

from deferfs.check import check_image
from deferfs.crash.content import CHUNK_BYTES
from deferfs.crash.history import History, first_foreign_byte
from deferfs.crash.model import Node, Nodes, differences, linked
from deferfs.crash.states import CrashStates, Shredded
from deferfs.crash.tree import read_content, read_tree
from deferfs.device import Chooser, MemoryDevice, RecordingDevice
from deferfs.volume import attributes
from deferfs.volume.driver import Driver

_PROBLEMS_SHOWN: Final = 12
_CLOCK_START: Final = 1 << 50
"""After recovery, times are later than any of the history."""


class CrashError(AssertionError):
    """A crash image breaks a promise."""


@dataclass(slots=True)
class Verdict:
    """A crash image that keeps the promises. `state` is the prefix it led back to; `tree` what was found, without
    contents.
    """

    state: int
    tree: dict[int, Node]
    image: bytes


def open_image(image: bytes) -> tuple[Driver, RecordingDevice]:
    """A volume on a recorded copy of an image, recovered."""
    device = RecordingDevice(MemoryDevice.from_bytes(image))
    clock = itertools.count(_CLOCK_START).__next__
    return Driver.open(device, clock=clock, entropy=lambda: 7), device


def require_sound(image: bytes, when: str) -> int:
    """The checker finds nothing; the number of free blocks."""
    report = check_image(MemoryDevice.from_bytes(image, writable=False))
    if not (report.clean and report.complete):
        lines = [f"{problem.code}: {problem.message}" for problem in report.problems[:_PROBLEMS_SHOWN]]
        raise CrashError(f"unsound {when}: " + "; ".join(lines))
    return report.counts.free_blocks


class Oracle:
    """Judges crash images of one recorded run. `dice` choose where recoveries and unmounts are cut in turn."""

    judged_in_all: ClassVar[int] = 0
    """Crash states judged by all oracles of this process."""

    def __init__(self, states: CrashStates, history: History, *, dice: random.Random) -> None:
        self.states = states
        self.history = history
        self.dice = dice
        self.judged = 0
        """Crash states judged, those inside recoveries included."""
        self.cut_again_every = 1
        """Every so many images, the recovery and the unmount that follows it are cut once each."""

    def judge(self, position: int, choose: Chooser) -> Verdict:
        """Judge a crash after `position` records; CrashError when a promise is broken."""
        image = self.states.image(position, choose)
        try:
            return self._judge(image, position)
        except Exception as error:
            where = (
                f"crash after {position} records, {len(self.states.unflushed(position))} of them unflushed, {choose}"
            )
            if isinstance(error, CrashError):
                raise CrashError(f"{where}: {error}") from error
            raise CrashError(f"{where}: {type(error).__name__}: {error}") from error

    def _judge(self, image: bytes, position: int) -> Verdict:
        self._count()
        require_sound(image, "before recovery")
        driver, device = open_image(image)
        recovered = len(device.records)
        tree = read_tree(driver)
        state = self._prefix(tree, position)
        self._check_contents(driver, tree, state, position)
        self._check_unmount(driver, device, tree)
        if self.dice.randrange(self.cut_again_every) == 0:
            self._cut_again(image, device, recovered, tree)
        return Verdict(state, tree, image)

    def _count(self) -> None:
        self.judged += 1
        Oracle.judged_in_all += 1

    # --- promise 2 ---
    def _prefix(self, tree: Nodes, position: int) -> int:
        """The oldest allowed state that is the one found."""
        history = self.history
        for state in history.allowed(position):
            if history.states[state] == tree:
                return state
        floor, ceiling = history.floor(position), history.ceiling(position)
        for state in range(len(history.states)):
            if history.states[state] == tree:
                raise CrashError(f"recovered state {state}, allowed are {floor} to {ceiling}")
        nearest = min(range(floor, ceiling + 1), key=lambda state: len(differences(tree, history.states[state])))
        lines = differences(tree, history.states[nearest])[:_PROBLEMS_SHOWN]
        raise CrashError(f"no state from {floor} to {ceiling} was recovered; nearest is {nearest}: " + "; ".join(lines))

    # --- promise 3 ---
    def _check_contents(self, driver: Driver, tree: Nodes, state: int, position: int) -> None:
        for ino, node in tree.items():
            if not node.is_file or not node.nlink:
                continue
            found = read_content(driver, ino, node.size)
            expected = self.history.states[state][ino].content
            for number in sorted(found.numbers() | expected.numbers()):
                chunk = found.chunk(number)
                if chunk != expected.chunk(number):
                    pieces = self.history.pieces(ino, number, state, position)
                    at = first_foreign_byte(chunk[: node.size - number * CHUNK_BYTES], pieces)
                    if at >= 0:
                        raise CrashError(
                            f"inode {ino}, recovered to state {state}: byte {number * CHUNK_BYTES + at} is "
                            f"{chunk[at]}, which it never was ({len(pieces)} versions since)"
                        )

    # --- promises 4 and 1 ---
    def _check_unmount(self, driver: Driver, device: RecordingDevice, tree: Nodes) -> None:
        """Inactivate the orphans, unmount: what is left is sound, and is the tree without them."""
        driver.collect()
        driver.commit()
        volume = driver.volume
        if volume.store.orphans.count or volume.gc.backlog:
            raise CrashError(f"{volume.store.orphans.count} orphans are left after inodegc")
        free = attributes.statfs(volume).free
        driver.close()
        counted = require_sound(snapshot(device), "after unmount")
        if counted != free:
            raise CrashError(f"statfs says {free} free blocks, a scan finds {counted}")

    # --- promise 5 ---
    def _cut_again(self, image: bytes, device: RecordingDevice, recovered: int, tree: Nodes) -> None:
        states = CrashStates(image, device.records)
        for first, last in ((0, recovered), (recovered, len(device.records))):
            position = self.dice.randint(first, last)
            choose = Shredded(self.dice.getrandbits(32), self.dice.choice((0, 2, 4, 6, 8)))
            try:
                self._same_again(states.image(position, choose), tree, in_recovery=position <= recovered)
            except Exception as error:
                stage = "recovery" if position <= recovered else "unmount"
                raise CrashError(
                    f"cut again in its {stage} after {position} of {len(device.records)} records ({choose}): {error}"
                ) from error

    def _same_again(self, image: bytes, tree: Nodes, *, in_recovery: bool) -> None:
        self._count()
        require_sound(image, "before the second recovery")
        again = read_tree(open_image(image)[0])
        if in_recovery:
            lines = differences(again, tree)
        else:
            gone = set(tree) - set(again)
            lines = differences(linked(again), linked(tree))
            lines += [f"inode {ino}: gone" for ino in gone if tree[ino].nlink]
        if lines:
            raise CrashError("another state: " + "; ".join(lines[:_PROBLEMS_SHOWN]))


def snapshot(device: RecordingDevice) -> bytes:
    """The whole contents of a device."""
    return device.read(0, device.size)
