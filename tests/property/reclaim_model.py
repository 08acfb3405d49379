"""What must be true of every inode while it is used, evicted and cleaned up: a model that knows no queue and no cache.

It is told of each event, says in which state each inode must be then, and which of them must be on disk.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from deferfs.limits import INACTIVATION_RETRIES_MAX
from deferfs.reclaim.states import State


@dataclass(eq=False)
class File:
    """One file from its creation to the end of its record on disk. `state` None: not in memory."""

    ino: int
    generation: int
    links: int = 1
    exists: bool = True
    lookups: int = 0
    handles: int = 0
    state: State | None = None
    failures: int = 0
    incarnation: int = 0
    """How often its in-core inode was freed: a passive reference to an older one leads nowhere."""

    @property
    def active(self) -> bool:
        return self.lookups + self.handles > 0

    @property
    def orphan(self) -> bool:
        return self.links == 0


@dataclass
class Model:
    """All files. `waits`: the policy is inline; `stopped`: nothing may be cleaned up now."""

    files: list[File] = field(default_factory=list)
    idle: list[File] = field(default_factory=list)
    """Files in IDLE, coldest first."""
    waits: bool = False
    stopped: bool = False
    inactivated: int = 0
    freed: int = 0
    """In-core inodes that have gone."""
    freed_on_disk: int = 0

    # --- references ---
    def take(self, file: File, *, lookups: int = 0, handles: int = 0) -> None:
        """More active references: the inode is live, whatever it was before."""
        if file.state is State.IDLE:
            self.idle.remove(file)
        if file.state is None:
            file.failures = 0
        file.lookups += lookups
        file.handles += handles
        file.state = State.LIVE

    def drop(self, file: File, *, lookups: int = 0, handles: int = 0) -> bool:
        """Fewer; True when the inode must now be cleaned up."""
        file.lookups -= lookups
        file.handles -= handles
        if file.active:
            return False
        if file.orphan:
            file.state = State.NEED_INACTIVE
            return True
        file.state = State.IDLE
        self.idle.append(file)
        return False

    def unlink(self, file: File) -> bool:
        """One name less; True when the inode must now be cleaned up."""
        file.links -= 1
        if file.links or file.active:
            return False
        if file.state in (State.QUEUED, State.NEED_INACTIVE, State.INACTIVATING):
            return False  # it was due already, for another reason
        if file.state is State.IDLE:
            self.idle.remove(file)
        if file.state is None:
            file.failures = 0
        file.state = State.NEED_INACTIVE
        return True

    # --- eviction ---
    def dispose(self, due: list[File]) -> None:
        """Which task waits for it is up to the policy."""
        for file in due:
            if self.waits and not self.stopped:
                self.cleaned(file)
            else:
                file.state = State.QUEUED

    def evict(self, wanted: int, due_max: int, needy: set[File]) -> None:
        """The shrinker, for `wanted` inodes; `needy` cannot go without being cleaned up."""
        gone = 0
        due: list[File] = []
        while self.idle and gone < wanted and len(due) < due_max:
            file = self.idle.pop(0)
            if file in needy:
                due.append(file)
            else:
                self._forget(file)
                gone += 1
        self.dispose(due)

    # --- the inactivation ---
    def begin(self, file: File) -> bool:
        if file.state not in (State.QUEUED, State.NEED_INACTIVE):
            return False
        file.state = State.INACTIVATING
        return True

    def cleaned(self, file: File) -> None:
        """The inactivation has come to its end."""
        assert file.exists, "freed twice"
        assert not file.active, "freed while active"
        self.inactivated += 1
        if file.orphan:
            file.exists = False
            self.freed_on_disk += 1
        self._forget(file)

    def failed(self, file: File) -> None:
        if file.state is not State.INACTIVATING:
            return
        file.failures += 1
        file.state = State.NEED_INACTIVE if file.failures < INACTIVATION_RETRIES_MAX else State.QUARANTINED

    def interrupted(self, file: File) -> None:
        if file.state is State.INACTIVATING:
            file.state = State.QUEUED

    def retry(self) -> None:
        """What has failed is due again."""
        for file in self.files:
            if file.state is State.NEED_INACTIVE:
                file.state = State.QUEUED

    def readmit(self) -> None:
        """What is in quarantine is tried once more."""
        for file in self.files:
            if file.state is State.QUARANTINED:
                file.failures = 0
                file.state = State.QUEUED

    def _forget(self, file: File) -> None:
        file.state = None
        file.incarnation += 1
        self.freed += 1
