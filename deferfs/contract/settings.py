"""All settings of a mount: `-o KEY=VALUE` when it is made, `deferfs ctl DIR KEY=VALUE` while it lasts.

Parsers, help texts and the tables of docs/command-line.md are made from this table. What only the kernel knows (`ro`,
`noexec`, ...) and what is ignored is in the parser of the mount options.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from deferfs import limits
from deferfs.contract.setting import Setting
from deferfs.contract.values import (
    Choice,
    File,
    Present,
    Real,
    Size,
    Switch,
    Whole,
    Word,
    Words,
)

EvictMode = Literal["deferred", "inline"]
EVICT_MODES: Final[tuple[EvictMode, ...]] = ("deferred", "inline")

COMMIT_SECONDS_MIN: Final = 0.1
COMMIT_SECONDS_MAX: Final = 300
"""What is not committed for five minutes is lost for five minutes."""
TIMEOUT_SECONDS_DEFAULT: Final = 86_400.0
"""Names and attributes change only through this mount: the kernel may trust them for a day."""
TIMEOUT_SECONDS_MAX: Final = 1e9
MAX_READ_BYTES_MIN: Final = 4096
MAX_READ_BYTES_MAX: Final = 1 << 30
COUNT_MAX: Final = 10**12
"""More than there can be: no limit."""
DAY_SECONDS: Final = 86_400
LONG_SECONDS: Final = 1e9
"""Thirty years: no limit."""


# --- mount options, most of which may be changed later ---
EVICT: Final = Setting[EvictMode](
    key="evict",
    value=Choice(EVICT_MODES),
    default="deferred",
    help="who waits for the cleanup of an evicted inode",
    more="`deferred`: background workers; `inline`: the request that evicts it",
    field="evict",
    live=True,
)
COMMIT: Final = Setting[float](
    key="commit",
    value=Real(COMMIT_SECONDS_MIN, COMMIT_SECONDS_MAX),
    default=limits.COMMIT_SECONDS_DEFAULT,
    help="longest time that a change stays only in memory",
    field="commit_seconds",
    live=True,
)
GC_WORKERS: Final = Setting[int](
    key="gc_workers",
    value=Whole(1, limits.GC_WORKERS_MAX),
    default=limits.GC_WORKERS_DEFAULT,
    help="size of the pool that cleans up",
    field="gc_workers",
    live=True,
)
GC_IN_CORE: Final = Setting[int](
    key="gc_in_core",
    value=Whole(0, limits.GC_IN_CORE_LIMIT),
    default=limits.GC_IN_CORE_MAX,
    help="in-core inodes that may wait for cleanup",
    more=f"at most {limits.GC_IN_CORE_LIMIT}; beyond it deleted files wait in the orphan table alone, and take no "
    "memory",
    field="gc_in_core",
    live=True,
)
MEMORY: Final = Setting[int | None](
    key="memory",
    value=Size(limits.MEMORY_BYTES_MIN),
    default=None,
    default_words="256M; in a small cgroup half of its limit, and 64 MiB less than the limit at most",
    help="budget for cached inodes and blocks",
    field="memory_bytes",
    live=True,
)
BACKGROUND_RECLAIM: Final = Setting[bool](
    key="background_reclaim",
    value=Switch(),
    default=True,
    help="whether a background reclaimer works ahead",
    more="`off`: each operation that needs memory reclaims for itself, as in a memory cgroup of the kernel, which has "
    "no kswapd",
    field="background_reclaim",
    live=True,
)
HANDLERS: Final = Setting[int | None](
    key="handlers",
    value=Whole(1, limits.HANDLERS_MAX),
    default=None,
    default_words="as many as `memory` has room for buffers of 2 MiB, from 24 to 99",
    help="how many requests are handled at once",
    more=f"at most {limits.HANDLERS_MAX}; few, as in most FUSE daemons, show who waits for a free handler. While all "
    "of them wait for space, none reads the FORGET that would free it",
    field="handlers",
)
DISCARD: Final = Setting[bool](
    key="discard",
    value=Present(),
    default=False,
    help="punch holes where blocks were freed",
    field="discard",
)
WRITEBACK_CACHE: Final = Setting[bool](
    key="writeback_cache",
    value=Switch(),
    default=True,
    help="whether the kernel collects writes",
    field="writeback_cache",
)
POLL: Final = Setting[int](
    key="poll",
    value=Whole(0, limits.POLL_US_MAX, "MICROSECONDS"),
    default=limits.POLL_US_DEFAULT,
    help="longest time to look out for the next request",
    more="after that the daemon sleeps; see [operating](operating.md#looking-out-for-the-next-request)",
    field="poll_us",
    live=True,
)
ENTRY_TIMEOUT: Final = Setting[float](
    key="entry_timeout",
    value=Real(0, TIMEOUT_SECONDS_MAX),
    default=TIMEOUT_SECONDS_DEFAULT,
    help="how long the kernel trusts names",
    field="entry_timeout",
)
ATTR_TIMEOUT: Final = Setting[float](
    key="attr_timeout",
    value=Real(0, TIMEOUT_SECONDS_MAX),
    default=TIMEOUT_SECONDS_DEFAULT,
    help="how long the kernel trusts attributes",
    field="attr_timeout",
)
LOG: Final = Setting[str | None](
    key="log",
    value=File(),
    default=None,
    default_words="syslog",
    help="where a daemon in the background logs",
    field="log",
)
ALLOW_OTHER: Final = Setting[bool](
    key="allow_other",
    value=Present(),
    default=False,
    help="other users may use the mount",
    field="allow_other",
)
ALLOW_ROOT: Final = Setting[bool](
    key="allow_root",
    value=Present(),
    default=False,
    help="root may use a mount of an ordinary user",
    field="allow_root",
)
DEFAULT_PERMISSIONS: Final = Setting[bool](
    key="default_permissions",
    value=Present(),
    default=False,
    default_words="on, but where only root may enter",
    help="the kernel checks permissions",
    more="see [operating](operating.md#users-and-permissions)",
    field="default_permissions",
)
MAX_READ: Final = Setting[int | None](
    key="max_read",
    value=Whole(MAX_READ_BYTES_MIN, MAX_READ_BYTES_MAX, "BYTES"),
    default=None,
    help="largest read request",
    field="max_read_bytes",
)
AT: Final = Setting[int | None](
    key="at",
    value=Whole(0, 1 << 62, "TID"),
    default=None,
    help="only with ro: the filesystem as it was after this transaction",
    more="its number is one that is still in the log ([`debug`](#debug))",
    field="at_tid",
)

# --- settings of a mount ---
GC_DELAY: Final = Setting[float](
    key="gc_delay",
    value=Real(0, 60),
    default=limits.GC_DELAY_SECONDS,
    help="how long a batch of cleanups may gather",
    live=True,
)
GC_RATE: Final = Setting[float](
    key="gc_rate",
    value=Real(limits.GC_RATE_MIN, 1e9, "N", zero="no limit"),
    default=0.0,
    help="cleanup transactions a second, at most; 0: no limit",
    more="holds while nobody waits for them and neither memory nor space is short",
    live=True,
)
THROTTLE_INODES: Final = Setting[int](
    key="throttle_inodes",
    value=Whole(1, COUNT_MAX),
    default=limits.THROTTLE_INODES,
    help="queued inodes beyond which deletions wait",
    live=True,
)
THROTTLE_BYTES: Final = Setting[int](
    key="throttle_bytes",
    value=Size(),
    default=limits.THROTTLE_BYTES,
    help="bytes of queued inodes beyond which they wait",
    live=True,
)
THROTTLE_EXTENTS: Final = Setting[int](
    key="throttle_extents",
    value=Whole(1, COUNT_MAX),
    default=limits.THROTTLE_EXTENTS,
    help="extents of queued inodes beyond which they wait",
    live=True,
)
THROTTLE_AGE: Final = Setting[float](
    key="throttle_age",
    value=Real(0.001, DAY_SECONDS),
    default=limits.THROTTLE_AGE_SECONDS,
    help="age of the oldest queued inode beyond which they wait",
    live=True,
)
THROTTLE_DEADLINE: Final = Setting[float](
    key="throttle_deadline",
    value=Real(0, DAY_SECONDS),
    default=limits.THROTTLE_DEADLINE_SECONDS,
    help="how long they wait at most",
    live=True,
)
PREALLOCATION_LIFETIME: Final = Setting[float](
    key="preallocation_lifetime",
    value=Real(0.1, LONG_SECONDS),
    default=limits.PREALLOCATION_LIFETIME_SECONDS,
    help="speculative blocks unused for so long are freed",
    more="those past EOF of a file that has not grown meanwhile",
    live=True,
)
DRAIN: Final = Setting[float](
    key="drain",
    value=Real(0, DAY_SECONDS),
    default=limits.UNMOUNT_DRAIN_SECONDS,
    help="how long the unmount cleans up, at most",
    more="what is left then is for the next mount",
    live=True,
)
FREEZE_LIMIT: Final = Setting[float](
    key="freeze_limit",
    value=Real(0, LONG_SECONDS),
    default=limits.FREEZE_SECONDS_DEFAULT,
    help="a freeze ends by itself after so long; 0: never",
    live=True,
)

# --- what has something done ---
SYNC: Final = Setting[bool](
    key="sync", value=Present(), default=False, help="make everything written so far durable", live=True
)
GC: Final = Setting[tuple[str, str]](
    key="gc",
    value=Words(
        (
            Word("push", "start cleaning up now"),
            Word("flush", "clean up, and wait until nothing is queued"),
            Word("flush", "wait for one inode, which is cleaned up out of turn", "INODE"),
            Word("flush-below", "wait for what was deleted in this directory, and below it", "INODE"),
            Word("stop", "have inodegc rest between two transactions; FORGETs queue meanwhile"),
            Word("start", "let inodegc go on"),
            Word("retry", "try again what is in quarantine"),
        )
    ),
    default=("", ""),
    help="has inodegc do something",
    live=True,
)
FREEZE: Final = Setting[bool](
    key="freeze",
    value=Switch("1", "0"),
    default=False,
    help="make the image clean, and have changes wait until thaw=1",
    more="see [operating](operating.md#freezing-and-read-only)",
    live=True,
)
THAW: Final = Setting[bool](
    key="thaw",
    value=Switch("1", "0"),
    default=False,
    help="end a freeze; fails when the limit has ended it already",
    live=True,
)
READ_ONLY: Final = Setting[bool](
    key="ro",
    value=Switch("1", "0"),
    default=False,
    help="make the image clean, and refuse changes (EROFS); 0: undo it",
    live=True,
)
DROP_CACHES: Final = Setting[str](
    key="drop_caches",
    value=Choice(("1",)),
    default="",
    help="drop every cached inode and block that is not in use",
    live=True,
)
TRACE: Final = Setting[str](
    key="trace",
    value=File("off"),
    default="off",
    help="record a timeline for ui.perfetto.dev to a new file, until off",
    more="see [a timeline](operating.md#a-timeline)",
    live=True,
)
LOCKDEP: Final = Setting[str](
    key="lockdep",
    value=Choice(("report",)),
    default="",
    help="print which waits happened while what was held",
    more="possible deadlocks with their stacks, and where reclaim has waited",
    live=True,
)

SETTINGS: Final[tuple[Setting[Any], ...]] = (
    EVICT,
    COMMIT,
    GC_WORKERS,
    GC_IN_CORE,
    MEMORY,
    BACKGROUND_RECLAIM,
    HANDLERS,
    DISCARD,
    WRITEBACK_CACHE,
    POLL,
    ENTRY_TIMEOUT,
    ATTR_TIMEOUT,
    LOG,
    ALLOW_OTHER,
    ALLOW_ROOT,
    DEFAULT_PERMISSIONS,
    MAX_READ,
    AT,
    GC_DELAY,
    GC_RATE,
    THROTTLE_INODES,
    THROTTLE_BYTES,
    THROTTLE_EXTENTS,
    THROTTLE_AGE,
    THROTTLE_DEADLINE,
    PREALLOCATION_LIFETIME,
    DRAIN,
    FREEZE_LIMIT,
    SYNC,
    GC,
    FREEZE,
    THAW,
    READ_ONLY,
    DROP_CACHES,
    TRACE,
    LOCKDEP,
)
"""In the order of help texts and documentation."""
OPTIONS: Final = {setting.key: setting for setting in SETTINGS if setting.field}
"""Mount options by key."""
LIVE: Final = {setting.key: setting for setting in SETTINGS if setting.live}
"""What `deferfs ctl` takes, by key."""
ACTIONS: Final = frozenset((SYNC, GC, FREEZE, THAW, READ_ONLY, DROP_CACHES, TRACE, LOCKDEP))
"""Those of them that have something done at once."""
