"""Look for a failure with everything there is: the sweeps first, then random worlds."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

from deferfs.crash.examination import CrashError
from deferfs.crash.oracle import Oracle
from deferfs.crash.runs import random_world
from deferfs.crash.twin_error import TwinError
from deferfs.crash.world import fresh_free, fresh_image
from deferfs.errors import CorruptionError
from deferfs.volume.driver import DeadlockError
from tests.property import (
    background_sweeps,
    debt_sweeps,
    ending_sweeps,
    giving_sweeps,
    home_sweeps,
    large_sweeps,
    mount_sweeps,
    spill_sweeps,
    sweeps,
    waiting_sweeps,
)

SWEEPS: Final[dict[str, Callable[[int], int]]] = {
    "reuse_with_images_in_the_log": lambda seed: sweeps.reuse_with_images_in_the_log(),
    "reuse_during_checkpoint": lambda seed: sum(map(sweeps.reuse_during_checkpoint, range(12))),
    "freed_during_commit": lambda seed: sum(map(sweeps.freed_during_commit, range(3))),
    "data_in_place": sweeps.data_in_place,
    "nothing_old_shows": sweeps.nothing_old_shows,
    "recovery_to_its_end": sweeps.recovery_to_its_end,
    "everything_deleted": sweeps.everything_deleted,
    "many_orphans": large_sweeps.many_orphans,
    "many_extents": large_sweeps.many_extents,
    "large_directory": large_sweeps.large_directory,
    "io_errors": lambda seed: large_sweeps.io_errors(seed, 40),
    "preallocated": large_sweeps.preallocated,
    "large_transactions": large_sweeps.large_transactions,
    "unmounted": mount_sweeps.unmounted,
    "crash_after_crash": mount_sweeps.crash_after_crash,
    "alike_after_a_crash": mount_sweeps.alike_after_a_crash,
    "every_flush": sweeps.every_flush,
    "discarded": sweeps.discarded,
    "little_memory": sweeps.little_memory,
    "full_log": sweeps.full_log,
    "reuse_while_coming_home": lambda seed: sum(
        sweeps.reuse_during_checkpoint(held, keep_log=True) for held in range(8)
    ),
    "home_for_memory": home_sweeps.home_for_memory,
    "orphans_in_the_table": spill_sweeps.orphans_in_the_table,
    "paid_together": debt_sweeps.paid_together,
    "debts_outlived": debt_sweeps.debts_outlived,
    "debts_refused": debt_sweeps.debts_refused,
    "debts_on_a_full_disk": debt_sweeps.debts_on_a_full_disk,
    "debts_when_the_log_is_full": debt_sweeps.debts_when_the_log_is_full,
    "debts_of_an_aborted_mount": debt_sweeps.debts_of_an_aborted_mount,
    "requests_wait": waiting_sweeps.requests_wait,
    "space_is_found": waiting_sweeps.space_is_found,
    "log_space_is_shared": waiting_sweeps.log_space_is_shared,
    "cold_reads": waiting_sweeps.cold_reads,
    "durable_when_told": waiting_sweeps.durable_when_told,
    "cleanups_fail": ending_sweeps.cleanups_fail,
    "throttled": ending_sweeps.throttled,
    "frozen": ending_sweeps.frozen,
    "closed": ending_sweeps.closed,
    "unmounted_while_cleaning": ending_sweeps.unmounted_while_cleaning,
    "written_back": background_sweeps.written_back,
    "memory_comes_back": giving_sweeps.memory_comes_back,
    "frozen_too_long": giving_sweeps.frozen_too_long,
    "workers_give_way": giving_sweeps.workers_give_way,
    "trimmed_when_due": giving_sweeps.trimmed_when_due,
    "forgotten_in_slices": giving_sweeps.forgotten_in_slices,
    "stale_reads": waiting_sweeps.stale_reads,
    "paid_when_due": background_sweeps.paid_when_due,
    "evicted_on_the_way_home": debt_sweeps.evicted_on_the_way_home,
}


@dataclass(frozen=True, slots=True)
class Found:
    """The first failure, and the crash states it took to find it."""

    error: Exception
    finder: str
    states: int


def _finders(seed: int, only: str | None, worlds: int) -> Iterator[tuple[str, Callable[[], int]]]:
    for name, sweep in SWEEPS.items():
        if only in (None, name):
            yield name, partial(sweep, seed)
    for number in range(worlds):
        yield f"world {number}", partial(_world, 1000 * seed + number)


def _world(seed: int) -> int:
    dice = random.Random(seed)
    return random_world(dice, warm=150, count=150, cuts_percent=15, crashes_percent=1).judged


def _forget_images() -> None:
    """A planted fault may have had a hand in them."""
    fresh_image.cache_clear()
    fresh_free.cache_clear()


def hunt(seed: int, *, only: str | None = None, worlds: int = 0) -> Found | None:
    """The first failure of the sweeps (or of `only` that one), then of so many random worlds; None when nothing fails.

    Only what the oracle, the twin or a checksum finds counts, and waits that never end. Any other error is a mistake in
    the tests.
    """
    before = Oracle.judged_in_all
    for name, finder in _finders(seed, only, worlds):
        _forget_images()
        try:
            finder()
        except (CrashError, TwinError, CorruptionError, DeadlockError) as error:
            return Found(error, name, Oracle.judged_in_all - before)
        finally:
            _forget_images()
    return None
