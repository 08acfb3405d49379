"""Look for a failure with everything there is: the sweeps first, then random worlds."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from deferfs.crash.oracle import CrashError
from deferfs.crash.twin import TwinError
from deferfs.errors import CorruptionError
from tests.property import sweeps
from tests.property.actions import fresh_image, random_world


@dataclass(frozen=True, slots=True)
class Found:
    """The first failure, after so many whole runs of finders and the crash states that these judged."""

    error: Exception
    finder: str
    runs: int
    states: int


def _finders(seed: int, worlds: int) -> Iterator[tuple[str, Callable[[], int]]]:
    yield "reuse_with_images_in_the_log", sweeps.reuse_with_images_in_the_log
    for held in range(10):
        yield f"reuse_during_checkpoint {held}", partial(sweeps.reuse_during_checkpoint, held)
    yield "data_in_place", partial(sweeps.data_in_place, seed)
    yield "nothing_old_shows", partial(sweeps.nothing_old_shows, seed)
    yield "recovery_to_its_end", partial(sweeps.recovery_to_its_end, seed)
    yield "every_flush", partial(sweeps.every_flush, seed)
    yield "full_log", partial(sweeps.full_log, seed)
    for number in range(worlds):
        yield f"world {number}", partial(_world, 1000 * seed + number)


def _world(seed: int) -> int:
    dice = random.Random(seed)
    return random_world(dice, warm=150, count=150, cuts_percent=15, crashes_percent=1).judged


def hunt(seed: int, worlds: int) -> Found | None:
    """The first failure of any finder; None when nothing fails."""
    runs = states = 0
    for name, finder in _finders(seed, worlds):
        fresh_image.cache_clear()
        try:
            states += finder()
            runs += 1
        except (CrashError, TwinError, CorruptionError) as error:
            return Found(error, name, runs, states)
    return None
