"""Planted faults of what background tasks decide by themselves: when something is due, and what; see `faults`."""

from __future__ import annotations

import pytest

from deferfs.crash.stepping import SteppingDriver
from deferfs.limits import DIRTY_WAIT_SECONDS_MAX, MEMORY_SHORT
from deferfs.reclaim.pace import Pace
from deferfs.store.io import Job
from deferfs.volume import reading
from deferfs.volume.background_reclaim import BackgroundReclaim
from deferfs.volume.cleanup import Cleanup
from deferfs.volume.driver import Driver
from deferfs.volume.eviction import Eviction
from deferfs.volume.forgetting import Forgetting, Forgotten
from deferfs.volume.freezing import Freezing
from deferfs.volume.payment import Payment
from deferfs.volume.shortage import reclaim_goal
from deferfs.volume.turns import Turns
from deferfs.volume.waits import Committed, DebtsFit, Gathered, Granted, LessDirty, Released, Task, TrimsDue, Wait
from deferfs.volume.workers import Workers
from deferfs.volume.write_back import WriteBack
from tests.property.faults import fault
from tests.property.waiting_faults import FAULTS

__all__ = ["BACKGROUND", "FAULTS"]

_OTHERS = frozenset(FAULTS)


# --- commits and checkpoints ---
def _ask_for_nothing(patch: pytest.MonkeyPatch, kind: type[Wait]) -> None:
    original = WriteBack.ask_for

    def ask_for(write_back: WriteBack, wait: Wait) -> None:
        if not isinstance(wait, kind):
            original(write_back, wait)

    patch.setattr(WriteBack, "ask_for", ask_for)


@fault("written_back")
def a_wait_for_log_space_asks_for_nothing(patch: pytest.MonkeyPatch) -> None:
    _ask_for_nothing(patch, Granted)


@fault("written_back")
def a_wait_for_a_commit_asks_for_nothing(patch: pytest.MonkeyPatch) -> None:
    _ask_for_nothing(patch, Committed)


@fault("written_back")
def a_wait_for_freed_blocks_asks_for_nothing(patch: pytest.MonkeyPatch) -> None:
    _ask_for_nothing(patch, Released)


@fault("written_back")
def a_wait_for_clean_memory_asks_for_a_commit_alone(patch: pytest.MonkeyPatch) -> None:
    original = WriteBack.ask_for

    def ask_for(write_back: WriteBack, wait: Wait) -> None:
        if isinstance(wait, LessDirty):
            write_back.ask_commit()
        else:
            original(write_back, wait)

    patch.setattr(WriteBack, "ask_for", ask_for)


@fault("written_back")
def a_change_beside_waiters_for_the_log_asks_for_nothing(patch: pytest.MonkeyPatch) -> None:
    """One of them was served by a commit, and has filled too much of the transaction for the next one."""

    def applied(write_back: WriteBack, _: object) -> None:
        journal = write_back._journal
        if 2 * len(journal.running.images) > journal.transaction_blocks_max:
            write_back.ask_commit()
        write_back._look_at_memory()

    patch.setattr(WriteBack, "applied", applied)


@fault("written_back")
def a_job_that_the_journal_wants_is_not_asked_for_again(patch: pytest.MonkeyPatch) -> None:
    """A checkpoint found nothing to do before the commit that waiters for log space needed as well."""
    patch.setattr(WriteBack, "_look_at_journal", lambda write_back: None)


@fault("written_back")
def a_transaction_may_grow_until_operations_wait(patch: pytest.MonkeyPatch) -> None:
    """Operations that go by look at the memory alone."""

    def applied(write_back: WriteBack, _: object) -> None:
        write_back._look_at_memory()

    patch.setattr(WriteBack, "applied", applied)


@fault("written_back")
def memory_may_become_dirty_until_operations_wait(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(WriteBack, "_look_at_memory", lambda write_back: None)


@fault("written_back")
def the_tail_of_the_log_never_moves(patch: pytest.MonkeyPatch) -> None:
    """Images come home for their memory alone, whatever waits."""
    original = WriteBack.checkpoint_now

    def checkpoint_now(write_back: WriteBack, *, keep_log: bool) -> Job[int]:
        return original(write_back, keep_log=True)

    patch.setattr(WriteBack, "checkpoint_now", checkpoint_now)


@fault("written_back")
def the_tail_of_the_log_moves_for_memory(patch: pytest.MonkeyPatch) -> None:
    """Two barriers more for each."""
    original = WriteBack.checkpoint_now

    def checkpoint_now(write_back: WriteBack, *, keep_log: bool) -> Job[int]:
        return original(write_back, keep_log=False)

    patch.setattr(WriteBack, "checkpoint_now", checkpoint_now)


# --- access times ---
@fault("paid_when_due")
def half_a_table_of_debts_is_not_paid(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Payment, "noted", lambda payment: None)


@fault("paid_when_due")
def all_debts_are_paid_where_some_are_due(patch: pytest.MonkeyPatch) -> None:
    """Those that are young as well, one update for each."""
    original = Payment._pay_down_to
    patch.setattr(Payment, "_pay_down_to", lambda payment, goal: original(payment, 0))


@fault("paid_when_due")
def a_hurry_and_age_pay_no_more_than_the_rest(patch: pytest.MonkeyPatch) -> None:
    original = Payment._pay_down_to
    patch.setattr(Payment, "_pay_down_to", lambda payment, goal: original(payment, payment._debts.count_max // 4))


@fault("paid_when_due")
def payments_begin_with_the_front_of_the_table(patch: pytest.MonkeyPatch) -> None:
    """What is owed at the end of it is never paid."""
    original = Payment.sweep

    def sweep(payment: Payment, *, late: bool = False) -> Task[None]:
        payment._at = 0
        return original(payment, late=late)

    patch.setattr(Payment, "sweep", sweep)


@fault("paid_when_due")
def debts_are_paid_while_inodegc_rests(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Payment, "due", property(lambda payment: payment.asked or payment.hurried))


@fault("paid_when_due")
def a_wait_for_room_in_the_table_asks_for_nothing(patch: pytest.MonkeyPatch) -> None:
    def wait_for_debt_slot(cleanup: Cleanup) -> Task[None]:
        yield DebtsFit(cleanup, cleanup._debts, DIRTY_WAIT_SECONDS_MAX)

    patch.setattr(Cleanup, "wait_for_debt_slot", wait_for_debt_slot)


@fault("paid_when_due")
def a_payment_makes_dirty_what_it_likes(patch: pytest.MonkeyPatch) -> None:
    def before_payment(cleanup: Cleanup, *, hurried: bool) -> Task[None]:
        yield from ()

    patch.setattr(Cleanup, "before_payment", before_payment)


# --- memory ---
@fault("memory_comes_back")
def the_kernel_is_not_asked_to_forget(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SteppingDriver, "drop_entries", lambda driver: 0)


@fault("memory_comes_back")
def background_reclaim_stops_where_memory_is_just_not_short(patch: pytest.MonkeyPatch) -> None:
    """Where memory is just not short any more."""
    patch.setattr(BackgroundReclaim, "_goal", lambda reclaim: int(MEMORY_SHORT * reclaim._memory.limit_bytes))


@fault("memory_comes_back")
def dirty_blocks_are_not_written_back_for_memory(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(WriteBack, "ask", lambda write_back: None)


@fault("memory_comes_back")
def background_reclaim_is_not_asked_after_a_checkpoint(patch: pytest.MonkeyPatch) -> None:
    original = WriteBack.checkpoint_ended

    def checkpoint_ended(write_back: WriteBack) -> None:
        write_back._comes_home = False
        original(write_back)

    patch.setattr(WriteBack, "checkpoint_ended", checkpoint_ended)


@fault("memory_comes_back")
def reclaim_that_is_off_goes_on(patch: pytest.MonkeyPatch) -> None:
    def set_works(reclaim: BackgroundReclaim, works: bool) -> None:
        reclaim._ask()

    patch.setattr(BackgroundReclaim, "set_works", set_works)


@fault("memory_comes_back")
def the_kernels_pressure_takes_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(BackgroundReclaim, "_goal", lambda reclaim: reclaim_goal(reclaim._memory))


@fault("memory_comes_back")
def the_kernels_pressure_leaves_the_backlog(patch: pytest.MonkeyPatch) -> None:
    def under_pressure(reclaim: BackgroundReclaim) -> None:
        reclaim._pressed_to = reclaim._memory.used * 7 // 8
        reclaim._ask()

    patch.setattr(BackgroundReclaim, "under_pressure", under_pressure)


@fault("memory_comes_back")
def the_kernels_pressure_never_ends(patch: pytest.MonkeyPatch) -> None:
    """What was asked for once is kept to for good."""
    original = BackgroundReclaim.run

    def run(reclaim: BackgroundReclaim) -> Task[None]:
        pressed_to = reclaim._pressed_to
        yield from original(reclaim)
        reclaim._pressed_to = pressed_to // 2

    patch.setattr(BackgroundReclaim, "run", run)


# --- freezing ---
@fault("frozen_too_long")
def a_freeze_lasts_for_ever(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Freezing, "overdue", False)


@fault("frozen_too_long")
def a_freeze_without_a_limit_ends_at_once(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        Freezing, "overdue", property(lambda freezing: freezing.seconds() - freezing.began >= freezing.limit_seconds)
    )


@fault("frozen_too_long")
def a_thaw_that_fails_ends_the_freeze(patch: pytest.MonkeyPatch) -> None:
    """Changes are possible, and the image is marked clean."""
    original = Freezing._mark_in_use

    def mark_in_use(freezing: Freezing) -> Task[None]:
        try:
            yield from original(freezing)
        except OSError:
            pass

    patch.setattr(Freezing, "_mark_in_use", mark_in_use)


@fault("frozen_too_long")
def a_thaw_after_the_limit_reports_nothing(patch: pytest.MonkeyPatch) -> None:
    """The copy that was made may be torn."""
    patch.setattr(Freezing, "_why_not_frozen", lambda freezing: "not frozen")


# --- workers of inodegc ---
@fault("workers_give_way")
def workers_never_stand_back(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Workers, "stand_back", lambda workers, number: iter(()))


@fault("workers_give_way")
def workers_stand_back_for_ever(patch: pytest.MonkeyPatch) -> None:
    """As long as requests stream in."""
    patch.setattr("deferfs.volume.workers.GC_LOOKS_MAX", 1 << 30)


@fault("workers_give_way")
def workers_stand_back_from_what_is_waited_for(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Cleanup, "pressed", lambda cleanup: False)


@fault("workers_give_way")
def a_batch_is_taken_whatever_the_pace(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Pace, "batch", lambda pace, count_max: count_max)


@fault("workers_give_way")
def a_batch_gathers_although_it_is_waited_for(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Gathered, "over", lambda wait: False)


@fault("workers_give_way")
def transactions_begin_whatever_the_pace(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Turns, "may_begin", lambda turns: True)


@fault("workers_give_way")
def transactions_wait_for_the_pace_although_they_are_waited_for(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Turns, "may_begin", lambda turns: not turns.pace.wait_ns())


# --- blocks past EOF ---
@fault("trimmed_when_due")
def no_look_for_idle_files(patch: pytest.MonkeyPatch) -> None:
    """What is trimmed was closed."""
    patch.setattr(Eviction, "_queue_idle", lambda eviction: None)


@fault("trimmed_when_due")
def files_are_trimmed_in_the_middle_of_their_growth(patch: pytest.MonkeyPatch) -> None:
    def queue_all(eviction: Eviction) -> None:
        eviction.to_trim.update(dict.fromkeys(eviction._volume.past_eof))

    patch.setattr(Eviction, "_queue_idle", queue_all)


@fault("trimmed_when_due")
def a_look_is_taken_only_when_its_time_has_come(patch: pytest.MonkeyPatch) -> None:
    """Neither when files are queued, nor when their lifetime gets shorter."""
    patch.setattr(TrimsDue, "over", lambda wait: False)


@fault("trimmed_when_due")
def trims_do_not_stop_with_inodegc(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Eviction, "trim_queued", _trim_queued)


def _trim_queued(eviction: Eviction) -> Task[None]:
    while eviction.to_trim:
        yield from eviction.trim(*eviction.to_trim.popitem()[0])


# --- FORGETs ---
@fault("forgotten_in_slices")
def large_messages_are_counted_in_their_handler(patch: pytest.MonkeyPatch) -> None:
    def forget(forgetting: Forgetting, inodes: Forgotten) -> Task[None]:
        return forgetting._by_slices(inodes)

    patch.setattr(Forgetting, "forget", forget)


@fault("forgotten_in_slices")
def a_large_message_is_kept_as_a_whole(patch: pytest.MonkeyPatch) -> None:
    original = Forgetting.forget

    def forget(forgetting: Forgetting, inodes: Forgotten) -> Task[None] | None:
        if len(inodes) > forgetting.at_once:
            forgetting._kept.append(inodes)
            return None
        return original(forgetting, inodes)

    patch.setattr(Forgetting, "forget", forget)


@fault("forgotten_in_slices")
def the_last_slice_of_a_message_is_lost(patch: pytest.MonkeyPatch) -> None:
    original = Forgetting.count_kept

    def count_kept(forgetting: Forgetting) -> Task[None]:
        if len(forgetting._kept) > 1:
            forgetting._kept.pop()
        yield from original(forgetting)

    patch.setattr(Forgetting, "count_kept", count_kept)


@fault("forgotten_in_slices")
def a_full_disk_does_not_count_kept_forgets(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Driver, "listen", lambda driver: None)


# --- reads ---
@fault("stale_reads")
def data_read_while_blocks_changed_hands_is_returned(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(reading, "_is_stale", lambda engine, found: False)


BACKGROUND = tuple(name for name in FAULTS if name not in _OTHERS)
"""Those in here."""
