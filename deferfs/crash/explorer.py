"""Every crash of a recorded run: all epochs of its log, the states of each, and the crashes inside their recoveries.

**What is counted.** A state is a disk image that a crash may leave; equal images are one state, whatever their origin.
Each is recovered by the real code as far as its log reaches, and compared with the history. Recoveries with equal
results are examined once (`outcomes`). A state found again at a position where more must be durable is judged again.

**Crashes inside recovery, to the fixpoint.** The writes of a recovery, and of the mount around it, form epochs like any
other: their states are states of the run, which must recover to the same outcome. That ends where recovery finds an
empty log, as such an image recovers to itself.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from deferfs.crash.epochs import CrashState, Epoch, choices, epochs, sampled_choices
from deferfs.crash.examination import CrashError, Examination, examine
from deferfs.crash.history import History
from deferfs.crash.model import differences
from deferfs.crash.oracle import Oracle
from deferfs.crash.outcomes import Outcome, Outcomes
from deferfs.crash.pages import Names, PageDevice, Pages, Patch, patched, split
from deferfs.crash.recoveries import Recovery, mount_records, run_recovery
from deferfs.crash.states import CrashStates, Subset
from deferfs.crash.view import RecoveredView
from deferfs.device import Record
from deferfs.ondisk.format import SUPERBLOCK_BYTES, SUPERBLOCK_OFFSETS
from deferfs.ondisk.superblock import newest

_ALL: Final = 1 << 30
"""States of an epoch when all are wanted: more than any epoch has."""
_RECOVERIES_MAX: Final = 1 << 15
"""Recoveries that are remembered, so that a state with the same one need not be recovered again."""
_WITHIN_EVERY: Final = 32
"""One state in this many has its recovery's crashes explored although another state has the same recovery."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is explored. `torn`: as in `epochs.choices`. When not all states are taken, a fair sample is."""

    torn: int = 24
    states_per_epoch: int = _ALL
    within: int = 24
    """States per epoch of one recovery."""
    sample_every: int = 128
    """One state in this many is also judged by the plain oracle."""
    empty_every: int = 8
    """One examination in this many ends with deleting everything."""


@dataclass(slots=True)
class Tally:
    """What was explored: `states` are distinct images, `repeats` those found again."""

    states: int = 0
    repeats: int = 0
    within: int = 0
    """Of the states, those inside recoveries."""
    recoveries: int = 0
    """Recoveries that were run, i.e. distinct logs."""
    examined: int = 0
    sampled: int = 0
    emptied: int = 0
    epochs: int = 0
    coverage: dict[str, int] = field(default_factory=dict)
    """States by what was in flight, and by the result of recovery."""

    def add(self, other: Tally) -> None:
        """Add the counts of `other`."""
        for name in ("states", "repeats", "within", "recoveries", "examined", "sampled", "emptied", "epochs"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for what, count in other.coverage.items():
            self.coverage[what] = self.coverage.get(what, 0) + count


class _Judged(NamedTuple):
    """An image was judged at a position with oldest allowed state `floor`, and recovered to `state`."""

    floor: int
    state: int


@dataclass(frozen=True, slots=True)
class CrashPoint:
    """A crash: the number of its epoch, and the writes that are kept of that. `within` is the same for the recovery
    that follows, if that is interrupted as well.
    """

    epoch: int
    choice: Subset
    within: CrashPoint | None = None

    def __str__(self) -> str:
        kept = f"of epoch {self.epoch} keep writes {self.choice.kept:#x}"
        if self.choice.torn >= 0:
            kept += f" and sectors {self.choice.sectors:#x} of write {self.choice.torn}"
        if self.choice.trashed:
            kept += f", trash sectors {self.choice.trashed:#x} of it"
        if self.choice.shred:
            kept += f", torn by seed {self.choice.shred}"
        return kept if self.within is None else f"{kept}; in its recovery, {self.within}"


class Failure(CrashError):
    """A promise is broken after the crash `crash`."""

    def __init__(self, reason: str, crash: CrashPoint) -> None:
        super().__init__(f"{crash}: {reason}")
        self.reason = reason
        self.crash = crash


class NoSuchCrash(ValueError):
    """The run does not reach the given crash: it differs from when that was found."""


class Explorer:
    """Explores the log `records` of a disk that held `start`, against its `history`. Single use: exploring changes the
    base pages.

    `fresh_free` is the number of free blocks of the new filesystem; `phases[i]` says what was in flight at record i.
    """

    def __init__(
        self,
        start: bytes,
        records: Sequence[Record],
        history: History,
        *,
        seed: int = 0,
        limits: Limits | None = None,
        fresh_free: int | None = None,
        phases: Sequence[str] = (),
    ) -> None:
        self.history = history
        self.records = records
        self.limits = limits or Limits()
        self.seed = seed
        self.dice = random.Random(seed)
        self.fresh_free = fresh_free
        self.phases = phases
        self.invariants: Sequence[tuple[int, Callable[[RecoveredView], None]]] = ()
        """Further invariants, each with the record from which on it must hold; it raises when violated."""
        self.tally = Tally()
        superblock = newest([start[at : at + SUPERBLOCK_BYTES] for at in SUPERBLOCK_OFFSETS])
        self.page_bytes = superblock.block_size
        self.base: Pages = split(start, self.page_bytes)
        log = range(superblock.journal_start, superblock.journal_start + superblock.journal_blocks)
        fixed = frozenset([*log, *(at // self.page_bytes for at in SUPERBLOCK_OFFSETS)])
        self.names = Names(self.base, fixed)
        self.outcomes = Outcomes(self.base, history, fixed)
        self._plain = Oracle(CrashStates(start, records), history, dice=self.dice)
        self._seen: dict[int, _Judged] = {}
        self._recoveries: dict[int, Recovery] = {}
        self._within_done: set[int] = set()

    def explore(self, first: int = 0) -> Tally:
        """Explore all epochs that end after record `first`. Failure when a result is not allowed."""
        for epoch in epochs(self.records, self.page_bytes):
            if epoch.end >= first:
                self._explore_epoch(epoch)
            self._pass(epoch)
        return self.tally

    def _pass(self, epoch: Epoch) -> None:
        """The epoch ends with a flush: all of it becomes durable."""
        complete = epoch.state(self.base, Subset(-1))
        assert complete is not None
        self.names.advance(complete.patch)
        self.outcomes.begin_epoch(set(), complete.patch)

    def _explore_epoch(self, epoch: Epoch) -> None:
        self.tally.epochs += 1
        self.outcomes.begin_epoch(epoch.pages(), {})
        self._within_done.clear()
        budget = self.limits.states_per_epoch
        for choice in self._choices(epoch, epoch_dice(self.seed, epoch), torn=self.limits.torn, at_most=budget):
            state = epoch.state(self.base, choice)
            if state is not None:
                budget -= self.try_state(epoch, state)
                if budget <= 0:
                    break

    def _choices(self, epoch: Epoch, dice: random.Random, *, torn: int, at_most: int) -> Iterator[Subset]:
        if at_most >= _ALL:
            return choices(epoch, dice, torn=torn)
        # more than needed, because states found again do not count
        return sampled_choices(epoch, dice, torn=torn, at_most=4 * at_most)

    def try_state(self, epoch: Epoch, state: CrashState) -> bool:
        """Judge a state; whether it is new. Failure when a promise is broken."""
        image, log = self.names.of(state.patch)
        known, floor = self._seen.get(image), self.history.floor(state.latest)
        if known is not None and floor <= known.floor:
            self.tally.repeats += 1
            return False
        self._count(new=known is None)
        try:
            outcome, recovery = self._judge(state, log)
        except Exception as error:
            raise _failure(error, CrashPoint(epoch.number, state.choice)) from error
        self._seen[image] = _Judged(floor, outcome.state)
        if known is not None:
            return False
        self._cover(state, outcome)
        fresh = recovery.key not in self._within_done
        if recovery.images and (fresh or self.dice.randrange(_WITHIN_EVERY) == 0):
            self._within_done.add(recovery.key)
            self._crash_within(state, recovery, outcome)
        if self.dice.randrange(self.limits.sample_every) == 0:
            self._sample(epoch, state, outcome)
        return True

    def _count(self, *, new: bool) -> None:
        if new:
            self.tally.states += 1
            Oracle.judged_in_all += 1
        else:
            self.tally.repeats += 1

    def _judge(self, state: CrashState, log: int) -> tuple[Outcome, Recovery]:
        recovery = self._recoveries.get(log)
        if recovery is None:
            recovery = run_recovery(PageDevice(self.base, state.patch))
            self.tally.recoveries += 1
            if len(self._recoveries) >= _RECOVERIES_MAX:
                self._recoveries.clear()
            self._recoveries[log] = recovery
        outcome = self.outcomes.find(recovery, state.patch)
        if outcome is None:
            outcome = self.outcomes.add(recovery, self._examine(state))
        recovered = {**state.patch, **recovery.images} if recovery.images else state.patch
        device = PageDevice(self.base, recovered)
        wrong = self.outcomes.require_allowed(
            outcome, recovered, device.read, state.earliest, state.latest, state.trashed
        )
        if wrong is not None:
            raise CrashError(wrong)
        if self.invariants:
            view = RecoveredView(outcome.found.tree, outcome.found.layout, device.read)
            for position, check in self.invariants:
                if state.latest >= position:
                    check(view)
        return outcome, recovery

    def _examine(self, state: CrashState) -> Examination:
        self.tally.examined += 1
        empty = self.fresh_free if self.tally.examined % self.limits.empty_every == 1 else None
        self.tally.emptied += empty is not None
        device = PageDevice(self.base, state.patch)
        return examine(device, fresh_free=empty, trashed=bool(state.trashed))

    # --- crashes inside recovery ---
    def _crash_within(self, state: CrashState, recovery: Recovery, outcome: Outcome) -> None:
        """States inside the recovery of `state`: each must have the same outcome as the complete recovery."""
        for inner, before, pages in self._inner_epochs(state, recovery):
            left = self.limits.within
            for choice in self._choices(inner, self.dice, torn=self.limits.torn // 4, at_most=left):
                if left <= 0:
                    break
                within = inner.state(pages, choice)
                if within is not None:
                    left -= self._try_within(state, before, within, outcome)

    def _inner_epochs(self, state: CrashState, recovery: Recovery) -> Iterator[tuple[Epoch, Patch, Pages]]:
        """The epochs of the recovering mount, each with the durable state before it: as a patch on the base, and as
        pages.
        """
        before, pages = state.patch, patched(self.base, state.patch)
        self.outcomes.widen(recovery.images.keys())
        for inner in epochs(mount_records(PageDevice(self.base, state.patch)), self.page_bytes):
            yield inner, before, pages
            complete = inner.state(pages, Subset(-1))
            assert complete is not None
            before, pages = {**before, **complete.patch}, patched(pages, complete.patch)

    def _try_within(self, state: CrashState, before: Patch, within: CrashState, outcome: Outcome) -> bool:
        """Judge a state inside a recovery; whether it is new."""
        base = self.base
        patch = {page: content for page, content in {**before, **within.patch}.items() if content != base[page]}
        image, log = self.names.of(patch)
        known, floor = self._seen.get(image), self.history.floor(state.latest)
        if known is not None and floor <= known.floor and self._alike(known.state, outcome.state):
            self.tally.repeats += 1
            return False
        self._count(new=known is None)
        self.tally.within += known is None
        trashed = state.trashed | within.trashed
        inside = CrashState(state.epoch, state.choice, patch, state.earliest, state.latest, trashed)
        try:
            again, _ = self._judge(inside, log)
            lines = [] if again is outcome else differences(again.found.tree, outcome.found.tree)
            if lines:
                raise CrashError("the second recovery leads to another state: " + "; ".join(lines[:8]))
        except Exception as error:
            crash = CrashPoint(state.epoch, state.choice, CrashPoint(within.epoch, within.choice))
            raise _failure(error, crash) from error
        self._seen[image] = _Judged(floor, again.state)
        return known is None

    def _alike(self, one: int, other: int) -> bool:
        states = self.history.states
        return one == other or states[one] == states[other]

    def state_at(self, crash: CrashPoint) -> CrashState:
        """Advance to the epoch of the crash; its state. Single use."""
        for epoch in epochs(self.records, self.page_bytes):
            if epoch.number == crash.epoch:
                break
            self._pass(epoch)
        else:
            raise NoSuchCrash(f"the log has no epoch {crash.epoch}")
        self.outcomes.begin_epoch(epoch.pages(), {})
        state = epoch.state(self.base, crash.choice)
        if state is None:
            raise NoSuchCrash(f"epoch {crash.epoch} cannot be left with {crash.choice}")
        return state

    def image_of(self, crash: CrashPoint) -> bytes:
        """The image that the crash leaves. Single use: it changes the base pages; create a new Explorer per call."""
        state = self.state_at(crash)
        pages = patched(self.base, state.patch)
        if crash.within is not None:
            recovery = run_recovery(PageDevice(self.base, state.patch))
            for inner, _, before in self._inner_epochs(state, recovery):
                within = inner.state(before, crash.within.choice)
                if inner.number == crash.within.epoch and within is not None:
                    pages = patched(before, within.patch)
        return b"".join(pages)

    def judge_crash(self, crash: CrashPoint) -> None:
        """Judge one crash only. Failure when it breaks a promise. Single use."""
        state = self.state_at(crash)
        try:
            outcome, recovery = self._judge(state, self.names.of(state.patch)[1])
        except Exception as error:
            raise _failure(error, CrashPoint(crash.epoch, crash.choice)) from error
        if crash.within is not None:
            for inner, before, pages in self._inner_epochs(state, recovery):
                within = inner.state(pages, crash.within.choice)
                if inner.number == crash.within.epoch and within is not None:
                    self._try_within(state, before, within, outcome)

    # --- sampling and coverage ---
    def _sample(self, epoch: Epoch, state: CrashState, outcome: Outcome) -> None:
        """Judge the state without cached outcomes; the result must be the same."""
        self.tally.sampled += 1
        if state.trashed:
            found = examine(PageDevice(self.base, state.patch), trashed=True).tree
        else:
            try:
                found = self._plain.judge(state.latest, state.choice).tree
            except CrashError as error:
                raise _failure(error, CrashPoint(epoch.number, state.choice)) from error
        if found != outcome.found.tree:
            lines = differences(found, outcome.found.tree)
            raise AssertionError("the outcome of a state was taken for that of another: " + "; ".join(lines))

    def _cover(self, state: CrashState, outcome: Outcome) -> None:
        last = state.earliest - 1
        phase = self.phases[last] if 0 <= last < len(self.phases) else ""
        floor, ceiling = self.history.floor(state.latest), self.history.ceiling(state.earliest)
        if floor == ceiling:
            result = "the only state"
        elif outcome.state == floor:
            result = "the last synced state"
        else:
            result = "a later state"
        what = f"{phase or 'nothing'}; {result}"
        self.tally.coverage[what] = self.tally.coverage.get(what, 0) + 1


def epoch_dice(seed: int, epoch: Epoch) -> random.Random:
    """The random numbers for the choices of an epoch, independent of other epochs."""
    return random.Random(f"{seed}:{epoch.number}")


def _failure(error: Exception, crash: CrashPoint) -> Failure:
    if isinstance(error, Failure):
        return error
    return Failure(str(error) if isinstance(error, CrashError) else f"{type(error).__name__}: {error}", crash)
