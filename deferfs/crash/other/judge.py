"""Crash states of another filesystem, mounted one by one and compared with what was promised."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from deferfs.crash.epochs import CrashState, Epoch, choices, epochs
from deferfs.crash.examination import CrashError
from deferfs.crash.other.filesystems import Filesystem
from deferfs.crash.other.recorder import BLOCK_BYTES, loop_device, mounted, recorded_disk
from deferfs.crash.other.workload import Notes, Work, is_allowed
from deferfs.crash.pages import Pages, patched
from deferfs.crash.states import Subset
from deferfs.device import Record
from deferfs.errors import EnvironmentProblem


@dataclass(frozen=True, slots=True)
class Recording:
    """A log of writes to a disk of `size` zeros, the notes of what was promised, and the first record of the work."""

    size: int
    records: list[Record]
    notes: Notes
    first: int


def record(filesystem: Filesystem, directory: Path, *, steps: int, seed: int) -> Recording:
    """Make the filesystem on a recorded disk, mount it, run the workload, unmount it."""
    with recorded_disk(filesystem.size, directory) as disk:
        filesystem.format(disk.device)
        with mounted(filesystem, disk.device, directory / "mnt") as root:
            first = disk.mark()
            notes = Work(root, disk.mark, filesystem.sync, seed).run(steps)
        marks = sorted({0, first, *notes.all_marks()})
        records, positions = disk.records(marks)
    places = dict(zip(marks, positions, strict=True))
    notes.to_positions(places)
    return Recording(filesystem.size, records, notes, places[first])


def crash_states(recording: Recording, count: int, seed: int) -> Iterator[tuple[Pages, CrashState]]:
    """About `count` states, drawn from all epochs of the work: subsets of blocks. The pages are the durable ones, valid
    until the next state is requested.
    """
    pages: Pages = [bytes(BLOCK_BYTES)] * (recording.size // BLOCK_BYTES)
    found = [epoch for epoch in epochs(recording.records, BLOCK_BYTES) if epoch.first >= recording.first]
    each, more = divmod(count, len(found))
    dice = random.Random(seed)
    lucky = set(dice.sample(range(len(found)), more))
    wanted = {epoch.number: each + (index in lucky) for index, epoch in enumerate(found)}
    for epoch in epochs(recording.records, BLOCK_BYTES):
        yield from ((pages, state) for state in _draw(epoch, pages, wanted.get(epoch.number, 0), dice))
        complete = epoch.state(pages, Subset(-1))
        assert complete is not None
        pages = patched(pages, complete.patch)


def _draw(epoch: Epoch, pages: Pages, count: int, dice: random.Random) -> Iterator[CrashState]:
    if not count:
        return
    # whole blocks only
    candidates = [choice for choice in choices(epoch, dice, torn=8) if choice.torn < 0 and not choice.shred]
    for choice in dice.sample(candidates, min(count, len(candidates))):
        state = epoch.state(pages, choice)
        if state is not None:
            yield state


class Judge:
    """Mounts crash states on `mountpoint` from a file in `directory`."""

    def __init__(self, filesystem: Filesystem, notes: Notes, directory: Path) -> None:
        self.filesystem = filesystem
        self.notes = notes
        self.image = directory / "crash.img"
        self.mountpoint = directory / "crashed"

    def judge(self, pages: Pages, state: CrashState) -> None:
        """CrashError when the image cannot be mounted, is not sound, or lacks fsynced data."""
        self._write(pages, state)
        where = f"epoch {state.epoch}, {state.choice}, crash after {state.earliest} to {state.latest} records"
        with loop_device(self.image) as device:
            try:
                with mounted(self.filesystem, device, self.mountpoint) as root:
                    self._compare(root, state, where)
            except EnvironmentProblem as error:
                raise CrashError(f"{where}: {error}") from error
            complaint = self.filesystem.require_sound(device)
        if complaint is not None:
            raise CrashError(f"{where}: {complaint}")

    def _write(self, pages: Pages, state: CrashState) -> None:
        zeros = bytes(BLOCK_BYTES)
        with open(self.image, "wb") as file:
            file.truncate(len(pages) * BLOCK_BYTES)
            for number, page in enumerate(pages):
                content = state.patch.get(number, page)
                if content is not zeros and content != zeros:
                    os.pwrite(file.fileno(), content, number * BLOCK_BYTES)

    def _compare(self, root: Path, state: CrashState, where: str) -> None:
        for name in self.notes.versions:
            path = root / name
            found = path.read_bytes() if path.exists() else None
            versions = self.notes.allowed(name, state.earliest, state.latest)
            if not is_allowed(found, versions):
                was = "missing" if found is None else f"{len(found)} bytes"
                raise CrashError(f"{where}: {name} is {was}, and none of the {len(versions)} versions allowed")


def explore_other(
    filesystem: Filesystem,
    directory: Path,
    *,
    steps: int,
    states: int,
    seed: int,
    progress: Callable[[int], None] = lambda done: None,
) -> int:
    """Record, then judge about `states` crash states; how many. CrashError at the first broken promise."""
    recording = record(filesystem, directory, steps=steps, seed=seed)
    judge = Judge(filesystem, recording.notes, directory)
    done = 0
    for pages, state in crash_states(recording, states, seed):
        judge.judge(pages, state)
        done += 1
        progress(done)
    return done
