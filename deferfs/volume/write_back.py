"""When a commit and a checkpoint begin, and which of the two ways home a checkpoint goes.

Two jobs may be under way, one commit and one checkpoint. A driver runs them: it takes what `commit_due` and
`checkpoint_due` give it, tells the end of each (`commit_ended`, `checkpoint_ended`), and asks here for what a wait
needs (`ask_for`).

**Invariants**
- No wait for log space, durability or freed blocks lasts for ever, on a device that works: when one begins, a job is
  under way that brings it on, or one is asked for; and when a job ends, what the journal still wants is asked for
  again. An ask is taken back only by the job that it leads to, or when there is nothing to do for it.
- While an operation waits for log space, a commit of what runs and a checkpoint of what is committed are asked for, or
  under way.
- The running transaction is committed when it is half as large as it may get, and what is dirty goes home when it is
  more than WRITE_BACK_FRACTION of the budget (looked at after every LOOK_OPERATIONS-th operation; what was not
  committed at one look goes home at the next): before any operation has to wait for either.
- The tail of the log moves, which takes two barriers, only where log space is wanted; else images come home for their
  memory alone.
- Nothing begins once the journal is aborted, and no checkpoint once the mount has ended (`stop`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from deferfs.limits import COMMIT_SECONDS_DEFAULT, WRITE_BACK_FRACTION
from deferfs.store.checkpoint import bring_home, checkpoint
from deferfs.store.commit import commit
from deferfs.volume.waits import Committed, Granted, LessDirty, Released, Wait

if TYPE_CHECKING:
    from deferfs.store.io import Job
    from deferfs.store.plan import Plan
    from deferfs.volume.engine import Engine

LOOK_OPERATIONS: Final = 16
"""So many operations pass from one look at the memory to the next."""


def _nothing() -> None:
    """Default of a callback: there is no driver to notify."""


class WriteBack:
    """Of one volume. `on_commit`, `on_checkpoint`: one is asked for."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._store = engine.store
        self._journal = engine.store.journal
        self.commit_seconds: float = float(COMMIT_SECONDS_DEFAULT)
        """How long a change stays uncommitted at most: then the driver has a commit done unasked."""
        self.discard = False
        """Whether commits tell the device of the blocks they freed."""
        self.commit_asked = False
        self.checkpoint_asked = False
        self.stopped = False
        self.on_commit: Callable[[], None] = _nothing
        self.on_checkpoint: Callable[[], None] = _nothing
        self._comes_home = False
        """The checkpoint under way has something to bring home."""
        self._operations = 0

    def stop(self) -> None:
        """The image is closed: no checkpoint begins any more."""
        self.stopped = True

    # --- asking ---
    def ask(self) -> None:
        """Have a commit and a checkpoint done soon: an operation waits for what they give back."""
        self.ask_commit()
        self.ask_checkpoint()

    def ask_commit(self) -> None:
        """Have a commit begun."""
        self.commit_asked = True
        self.on_commit()

    def ask_checkpoint(self) -> None:
        """Have what is committed brought home."""
        self.checkpoint_asked = True
        self.on_checkpoint()

    def ask_for(self, wait: Wait) -> None:
        """Have that done which ends a wait. To be called when the wait begins, and, but for a wait for log space,
        whenever it is looked at again and not over. What waits for log space is remembered by the journal."""
        if isinstance(wait, Granted):
            self.ask()
        elif isinstance(wait, Committed):
            self.ask_commit()
        elif isinstance(wait, Released):
            if not self._journal.running.empty:
                self.ask_commit()
        elif isinstance(wait, LessDirty):
            if self._journal.pending_home:
                self.ask_checkpoint()
            else:
                self.ask_commit()

    def applied(self, _: Plan) -> None:
        """Cheap: called after each operation."""
        journal = self._journal
        if journal.grants or 2 * len(journal.running.images) > journal.transaction_blocks_max:
            self.ask_commit()
        self._operations += 1
        if not self._operations % LOOK_OPERATIONS:
            self._look_at_memory()

    def _look_at_memory(self) -> None:
        store = self._store
        if store.dirty_bytes > store.memory.limit_bytes // WRITE_BACK_FRACTION:
            self.ask_commit()
            if self._journal.pending_home:
                self.ask_checkpoint()
        self._engine.reclaim.look()

    def _look_at_journal(self) -> None:
        """A job has ended: ask for what the journal wants now."""
        journal = self._journal
        if journal.aborted is not None or self.stopped:
            return  # it would not be done, and be asked for again at once
        if journal.wants_commit:
            self.ask_commit()
        if journal.wants_checkpoint:
            self.ask_checkpoint()

    # --- commits ---
    def commit_due(self, *, late: bool = False) -> Job[int] | None:
        """The commit to run now; None when none is asked for, or there is nothing to commit. `late`: none has been
        asked for in `commit_seconds`."""
        if not (self.commit_asked or late):
            return None
        if self._journal.running.empty or self._journal.aborted is not None:
            self.commit_asked = False
            return None
        return self.commit_now()

    def commit_now(self) -> Job[int]:
        """A commit, due or not: of what is applied when it begins."""
        self.commit_asked = False
        return commit(self._journal, self._store.clock(), discard=self.discard)

    def commit_ended(self) -> None:
        """A commit is over, however it ended, or none was due."""
        self._engine.log_space.serve()
        self._look_at_journal()

    # --- checkpoints ---
    def checkpoint_due(self) -> Job[int] | None:
        """What brings home what is committed; None when that is not asked for, or there is nothing to do: then a wait
        for a checkpoint asks again when there is."""
        if not self.checkpoint_asked:
            return None
        self.checkpoint_asked = False
        journal = self._journal
        if not journal.committed or journal.aborted is not None or self.stopped:
            return None
        if not journal.pending_home and not journal.wants_checkpoint:
            return None
        return self.checkpoint_now(keep_log=not journal.wants_checkpoint)

    def checkpoint_now(self, *, keep_log: bool) -> Job[int]:
        """A checkpoint, due or not; with `keep_log` the log keeps what comes home."""
        journal = self._journal
        self._comes_home = bool(journal.pending_home)
        return bring_home(journal) if keep_log else checkpoint(journal, self._store.clock())

    def checkpoint_ended(self) -> None:
        """A checkpoint is over, however it ended, or none was due."""
        came_home, self._comes_home = self._comes_home, False
        if came_home:
            self._engine.reclaim.look()  # what was dirty can go now
        self._engine.log_space.serve()
        self._look_at_journal()
