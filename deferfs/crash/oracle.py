"""Is a crash image allowed? Recover it, and compare it with the history.

The promises (docs/crash-consistency.md):

1. The image is sound: the checker finds nothing wrong, before recovery (with the log replayed in memory) and after.
2. The recovered metadata is the state after some prefix of the operations, not before the last completed commit.
3. Each byte of a file is that of the recovered state, or was written there later: so synced data not written since is
   exact, and the data of another file is never visible.
4. Every inode without a name is in the orphan table; inactivating it returns all of its space.
5. Crashes during recovery, and during the unmount that follows, lead to the same state again.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar, Final

from deferfs.crash.examination import CrashError, Examination, examine, open_volume, require_sound
from deferfs.crash.history import History, Piece
from deferfs.crash.layout import chunks_with_content, wrong_bytes
from deferfs.crash.model import Node, Nodes, differences, linked
from deferfs.crash.pages import PageDevice, split
from deferfs.crash.recoveries import run_recovery
from deferfs.crash.states import CrashStates, Shredded
from deferfs.crash.tree import read_tree
from deferfs.device import Chooser

_PROBLEMS_SHOWN: Final = 12
_PAGE_BYTES: Final = 4096


@dataclass(slots=True)
class Verdict:
    """The result for an allowed crash image. `state` is the prefix that was recovered; `tree` the metadata found."""

    state: int
    tree: dict[int, Node]
    image: bytes


def prefix(history: History, tree: Nodes, earliest: int, latest: int) -> int:
    """The oldest state that equals the recovered one and is allowed for crashes at all positions from `earliest` to
    `latest`. CrashError when there is none.
    """
    floor, ceiling = history.floor(latest), history.ceiling(earliest)
    for state in range(floor, ceiling + 1):
        if history.states[state] == tree:
            return state
    for state in range(len(history.states)):
        if history.states[state] == tree:
            raise CrashError(f"recovered state {state}, allowed are {floor} to {ceiling}")
    nearest = min(range(floor, ceiling + 1), key=lambda state: len(differences(tree, history.states[state])))
    lines = differences(tree, history.states[nearest])[:_PROBLEMS_SHOWN]
    raise CrashError(f"no state from {floor} to {ceiling} was recovered; nearest is {nearest}: " + "; ".join(lines))


class Oracle:
    """Judges crash images of one recorded run independently of each other. `dice` chooses where recoveries and unmounts
    are interrupted in turn.
    """

    judged_in_all: ClassVar[int] = 0
    """Crash states judged in this process, by all oracles."""

    def __init__(self, states: CrashStates, history: History, *, dice: random.Random) -> None:
        self.states = states
        self.history = history
        self.dice = dice
        self.judged = 0
        """Crash states judged, including those inside recoveries."""
        self.cut_again_every = 1
        """One image in this many has its recovery, and the unmount that follows, interrupted once each."""

    def judge(self, position: int, choose: Chooser) -> Verdict:
        """Judge a crash after `position` records. CrashError when a promise is broken."""
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
        device = PageDevice(split(image, _PAGE_BYTES), {})
        found = examine(device)
        state = prefix(self.history, found.tree, position, position)
        nodes = self.history.states[state]
        chunks = sorted(chunks_with_content(found.layout, nodes))
        recovered = PageDevice(device.pages, {})
        run_recovery(recovered)

        def versions(ino: int, number: int) -> list[Piece]:
            return self.history.pieces(ino, number, state, position)

        wrong = wrong_bytes(found.layout, chunks, recovered.read, nodes, versions)
        if wrong is not None:
            raise CrashError(wrong)
        if self.dice.randrange(self.cut_again_every) == 0:
            self._cut_again(image, found)
        return Verdict(state, found.tree, image)

    def _count(self) -> None:
        self.judged += 1
        Oracle.judged_in_all += 1

    # --- promise 5 ---
    def _cut_again(self, image: bytes, found: Examination) -> None:
        records, recovered = found.records, found.recovered
        states = CrashStates(image, records)
        for first, last in ((0, recovered), (recovered, len(records))):
            position = self.dice.randint(first, last)
            choose = Shredded(self.dice.getrandbits(32), self.dice.choice((0, 2, 4, 6, 8)))
            try:
                self._same_again(states.image(position, choose), found.tree, in_recovery=position <= recovered)
            except Exception as error:
                stage = "recovery" if position <= recovered else "unmount"
                raise CrashError(
                    f"cut again in its {stage} after {position} of {len(records)} records ({choose}): {error}"
                ) from error

    def _same_again(self, image: bytes, tree: Nodes, *, in_recovery: bool) -> None:
        self._count()
        require_sound(image, "before the second recovery")
        again = read_tree(open_volume(PageDevice(split(image, _PAGE_BYTES), {})))
        if in_recovery:
            lines = differences(again, tree)
        else:
            gone = set(tree) - set(again)
            lines = differences(linked(again), linked(tree))
            lines += [f"inode {ino}: gone" for ino in gone if tree[ino].nlink]
        if lines:
            raise CrashError("another state: " + "; ".join(lines[:_PROBLEMS_SHOWN]))
