"""All settings of a mount: `-o KEY=VALUE` at mount time, `deferfs ctl DIR KEY=VALUE` while mounted.

Parsers, help texts and the tables of docs/command-line.md are generated from this table. Options of the kernel (`ro`,
`noexec`, ...) and ignored ones are in the parser of the mount options.
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
"""The shortest interval that can be set."""
COMMIT_SECONDS_MAX: Final = 300
"""A crash must not lose more than five minutes of work."""
TIMEOUT_SECONDS_DEFAULT: Final = 86_400.0
"""Names and attributes change only through this mount, so the kernel may cache them for a day."""
TIMEOUT_SECONDS_MAX: Final = 1e9
"""Thirty years: no limit."""
MAX_READ_BYTES_MIN: Final = 4096
"""One page: the smallest read of the page cache."""
MAX_READ_BYTES_MAX: Final = 1 << 30
"""Above what the kernel ever requests: no limit."""
COUNT_MAX: Final = 10**12
"""More than can exist: no limit."""
DAY_SECONDS: Final = 86_400
"""Upper bound of durations that are meant to be short."""
LONG_SECONDS: Final = 1e9
"""Thirty years: no limit."""


# --- mount options, most of which can be changed while mounted ---
EVICT: Final = Setting[EvictMode](
    key="evict",
    value=Choice(EVICT_MODES),
    default="deferred",
    help="which task waits for the cleanup of an evicted inode",
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
    help="number of cleanup workers",
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
    help="reclaim memory in the background",
    more="`off`: each operation that needs memory reclaims for itself, as in a memory cgroup of the kernel, which has "
    "no kswapd",
    field="background_reclaim",
    live=True,
)
HANDLERS: Final = Setting[int | None](
    key="handlers",
    value=Whole(1, limits.HANDLERS_MAX),
    default=None,
    default_words="one for each 2 MiB of `memory`, at least 24 and at most 99",
    help="how many requests are handled at once",
    more=f"at most {limits.HANDLERS_MAX}; few, as in most FUSE daemons, show which requests wait for a free "
    "handler. While all of them wait for space, none reads the FORGET that would free it",
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
    help="let the kernel cache writes",
    field="writeback_cache",
)
POLL: Final = Setting[int](
    key="poll",
    value=Whole(0, limits.POLL_US_MAX, "MICROSECONDS"),
    default=limits.POLL_US_DEFAULT,
    help="longest busy polling for the next request",
    more="after that the daemon sleeps; see [operating](operating.md#busy-polling)",
    field="poll_us",
    live=True,
)
ENTRY_TIMEOUT: Final = Setting[float](
    key="entry_timeout",
    value=Real(0, TIMEOUT_SECONDS_MAX),
    default=TIMEOUT_SECONDS_DEFAULT,
    help="how long the kernel may cache names",
    field="entry_timeout",
)
ATTR_TIMEOUT: Final = Setting[float](
    key="attr_timeout",
    value=Real(0, TIMEOUT_SECONDS_MAX),
    default=TIMEOUT_SECONDS_DEFAULT,
    help="how long the kernel may cache attributes",
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
    help="other users may access the mount",
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
    default_words="on, except where only root has access",
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
    more="the transaction must still be in the log ([`debug`](#debug))",
    field="at_tid",
)

# --- settings for `deferfs ctl` only ---
GC_DELAY: Final = Setting[float](
    key="gc_delay",
    value=Real(0, 60),
    default=limits.GC_DELAY_SECONDS,
    help="how long cleanups are gathered into a batch",
    live=True,
)
GC_RATE: Final = Setting[float](
    key="gc_rate",
    value=Real(limits.GC_RATE_MIN, 1e9, "N", zero="no limit"),
    default=0.0,
    help="cleanup transactions a second, at most; 0: no limit",
    more="ignored while an operation waits for them, or memory or space is short",
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
    help="blocks past EOF are freed when the file has not grown for so long",
    live=True,
)
DRAIN: Final = Setting[float](
    key="drain",
    value=Real(0, DAY_SECONDS),
    default=limits.UNMOUNT_DRAIN_SECONDS,
    help="how long the unmount cleans up, at most",
    more="the rest is left to the next mount",
    live=True,
)
FREEZE_LIMIT: Final = Setting[float](
    key="freeze_limit",
    value=Real(0, LONG_SECONDS),
    default=limits.FREEZE_SECONDS_DEFAULT,
    help="a freeze ends by itself after this time; 0: never",
    live=True,
)

# --- actions ---
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
            Word("stop", "stop inodegc between two transactions; FORGETs are queued"),
            Word("start", "start inodegc again"),
            Word("retry", "retry what is in quarantine"),
        )
    ),
    default=("", ""),
    help="control inodegc",
    live=True,
)
FREEZE: Final = Setting[bool](
    key="freeze",
    value=Switch("1", "0"),
    default=False,
    help="make the image clean, and block changes until thaw=1",
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
    help="print the order in which lock classes were held and waited for",
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
"""All settings and actions, in the order of help texts and documentation."""
OPTIONS: Final = {setting.key: setting for setting in SETTINGS if setting.field}
"""Mount options by key."""
LIVE: Final = {setting.key: setting for setting in SETTINGS if setting.live}
"""Settings and actions of `deferfs ctl`, by key."""
ACTIONS: Final = frozenset((SYNC, GC, FREEZE, THAW, READ_ONLY, DROP_CACHES, TRACE, LOCKDEP))
"""The entries of `LIVE` that are actions: carried out once, no value is stored."""
