"""Reclaim that never blocks: references, states, the in-core inode cache, evict policies, inodegc.

Nothing here waits. The sources of eviction (FORGET, RELEASE, direct reclaim, unmount) call the cache; a policy
decides which task waits for the inactivation that follows; a driver runs it.

The names exported here suit any FUSE daemon, and need neither pyfuse3, trio nor the store: `docs/reclaim-library.md`.
The inactivation of deferfs itself is in `deferfs.volume.inactivation`; another filesystem has its own.
"""

from deferfs.reclaim.cache import InodeCache, InodeStatistics
from deferfs.reclaim.context import ReclaimChecker, ReclaimViolation
from deferfs.reclaim.gc import GcStatistics, InodeGc, unfinished
from deferfs.reclaim.inode import ActiveReference, InCoreInode, PassiveReference
from deferfs.reclaim.lockdep import LockDep, LockOrderError
from deferfs.reclaim.pace import Pace
from deferfs.reclaim.policy import Deferred, EvictPolicy, Inline, make_policy
from deferfs.reclaim.queue import GcQueue, QueueStatistics
from deferfs.reclaim.states import TRANSITIONS, State, transition_table

__all__ = [
    "TRANSITIONS",
    "ActiveReference",
    "Deferred",
    "EvictPolicy",
    "GcQueue",
    "GcStatistics",
    "InCoreInode",
    "Inline",
    "InodeCache",
    "InodeGc",
    "InodeStatistics",
    "LockDep",
    "LockOrderError",
    "Pace",
    "PassiveReference",
    "QueueStatistics",
    "ReclaimChecker",
    "ReclaimViolation",
    "State",
    "make_policy",
    "transition_table",
    "unfinished",
]
