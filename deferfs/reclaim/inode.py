"""The in-core inode and the typed references to it.

An *active* reference (kernel lookup count, open handle, operation in flight) keeps the inode usable. A *passive*
reference (cache, queue, worker) keeps only the object, and allows: reading number, generation and state; queueing;
cancelling; trying to become active. The only way from passive to active is `try_activate`.

**Invariant:** every active reference implies a passive one; `passive` counts the cache's own, one for all active
references together, and one for each PassiveReference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from deferfs.reclaim.states import TRANSITIONS, State

if TYPE_CHECKING:
    from deferfs.reclaim.cache import InodeCache
    from deferfs.reclaim.queue import GcQueue


class InCoreInode:
    """In-core state of an inode that the kernel or a queue refers to. The record itself is in the block cache.

    `pending_blocks` are the blocks that inactivation will free, `pending_extents` their extents as far as is known;
    `slot` is its slot in the orphan table (-1: none known); `parent` the directory in which an orphan lost its last
    name, not known for one `reloaded` from the table; `lazy_atime` (ns, 0: none) a time not yet journaled. `following`
    links it into `queue`, so that queueing allocates nothing; `waiting` tells whether it still counts there, or only
    its link remains. `uses`: how often it was opened since it came into core or was last spared, 2 at most.
    """

    __slots__ = (
        "active_tokens", "failures", "following", "generation", "ino", "lazy_atime", "lookups", "orphan", "parent",
        "passive", "pending_blocks", "pending_extents", "preallocated", "queue", "queued_ns", "reloaded", "slot",
        "state", "uses", "waiting",
    )  # fmt: skip

    def __init__(self, ino: int, generation: int) -> None:
        self.ino = ino
        self.generation = generation
        self.state = State.NEW
        self.lookups = 0
        self.active_tokens = 0
        self.uses = 0
        self.passive = 1
        self.orphan = False
        self.preallocated = False
        self.lazy_atime = 0
        self.pending_blocks = 0
        self.pending_extents = 0
        self.queued_ns = 0
        self.failures = 0
        self.slot = -1
        self.reloaded = False
        self.parent: InCoreInode | None = None
        self.queue: GcQueue | None = None
        self.waiting = False
        self.following: InCoreInode | None = None

    @property
    def active(self) -> int:
        """Active references of all kinds."""
        return self.lookups + self.active_tokens

    @property
    def needs_inactivation(self) -> bool:
        """Whether eviction has to be preceded by work that journals."""
        return self.orphan or self.preallocated or self.lazy_atime != 0

    def paid(self, atime: int) -> None:
        """The access time `atime` has been written. A later one stays owed."""
        if self.lazy_atime == atime:
            self.lazy_atime = 0

    def move(self, state: State) -> None:
        """Change state. AssertionError for a transition not in TRANSITIONS."""
        assert state in TRANSITIONS[self.state], f"inode {self.ino}: {self.state.name} -> {state.name}"
        assert state is not State.LIVE or self.active, "LIVE needs an active reference"
        assert state is not State.FREED or not self.active, "freed while active"
        self.state = state

    def __repr__(self) -> str:
        return f"<inode {self.ino} {self.state.name} active={self.active} passive={self.passive}>"


class ActiveReference:
    """Keeps one inode usable until it is released, once."""

    __slots__ = ("_cache", "inode", "released")

    def __init__(self, cache: InodeCache, inode: InCoreInode) -> None:
        self._cache = cache
        self.inode = inode
        self.released = False

    def release(self) -> InCoreInode | None:
        """Drop the reference. Returns the inode when it must now be inactivated."""
        assert not self.released, f"reference to inode {self.inode.ino} released twice"
        self.released = True
        return self._cache.deactivate(self.inode, tokens=1)


class PassiveReference:
    """Keeps one in-core inode object alive until it is released, once."""

    __slots__ = ("_cache", "_inode", "released")

    def __init__(self, cache: InodeCache, inode: InCoreInode) -> None:
        self._cache = cache
        self._inode = inode
        self.released = False

    @property
    def ino(self) -> int:
        return self._inode.ino

    @property
    def generation(self) -> int:
        return self._inode.generation

    @property
    def state(self) -> State:
        return self._inode.state

    def try_activate(self) -> ActiveReference | None:
        """An active reference; None for an orphan without one, and for a freed inode."""
        return self._cache.try_activate(self._inode)

    def release(self) -> None:
        assert not self.released, f"passive reference to inode {self._inode.ino} released twice"
        self.released = True
        self._cache.put_passive(self._inode)
