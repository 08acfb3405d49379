"""Every bound of deferfs, with its unit and the reason for its value."""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB

# --- format -----------------------------------------------------------------------------------
BLOCK_SIZE_BYTES_MIN: Final = 1 * KIB
"""Below this an inode table block would hold a single record."""
BLOCK_SIZE_BYTES_MAX: Final = 64 * KIB
"""Larger than any page size in use; the second superblock sits at this offset."""
BLOCK_SIZE_BYTES_DEFAULT: Final = 4 * KIB
NAME_BYTES_MAX: Final = 255
"""NAME_MAX of POSIX and Linux."""
SYMLINK_BYTES_MAX: Final = 4095
"""PATH_MAX without its terminator."""
LINKS_MAX: Final = 65_000
"""As ext4; keeps a link count far from wrapping."""
FILE_BYTES_MAX: Final = 1 << 44
"""16 TiB: as ext4 with 4 KiB blocks; logical block numbers stay far below the tree's key space."""
RDEV_MAX: Final = 0xFFFF_FFFF
"""Device numbers of FUSE, and of the kernel's programs, have 32 bits."""
XATTR_NAME_BYTES_MAX: Final = 255
"""XATTR_NAME_MAX of Linux."""
XATTR_VALUE_BYTES_MAX: Final = 64 * KIB
"""XATTR_SIZE_MAX of Linux."""
XATTR_BYTES_MAX: Final = 256 * KIB
"""All attributes of one inode together: bounds the credits of one operation."""
LABEL_BYTES_MAX: Final = 32
DIRECTORY_WINDOW: Final = 256
"""Keys that the entry of a name may have: it takes the first one that is free, from the hash of the name on."""
DIRECTORY_ENTRIES_MAX: Final = 1 << 28
"""Entries of a directory with 31-bit keys: one for eight keys. A lookup in a full one looks at 32 further entries, and
with random hashes a full window is found in one of 10^124 such directories."""
BITMAP_REGIONS_MAX: Final = 8
"""Each growth of an image may add one region of bitmaps."""
SPARES_MAX: Final = 12
"""Spare superblocks: the places 1 MiB x 3^k reach 57 GiB, and one is at the end."""
SPARES_IMAGE_BYTES_MIN: Final = 8 * MIB
"""A smaller filesystem has no spare superblock: its first 68 KiB are a good part of it."""

# --- journal ----------------------------------------------------------------------------------
JOURNAL_BYTES_DEFAULT: Final = 64 * MIB
JOURNAL_BYTES_MAX: Final = 1 * GIB
"""Recovery reads all of the log, twice, and keeps 24 bytes for each image in it: 24 MiB with blocks of 1 KiB."""
JOURNAL_BLOCKS_MIN: Final = 256
"""A third of it holds the largest single operation with 1 KiB blocks."""
TRANSACTION_FRACTION: Final = 3
"""One compound transaction takes at most 1/3 of the log: below half (the XFS rule), so that the
transaction that follows always fits while the first is checkpointed."""
CHECKPOINT_START_FRACTION: Final = 4
"""The pusher starts when 1/4 of the log is in use, so that a foreground operation seldom waits."""
COMMIT_SECONDS_DEFAULT: Final = 5
"""Longest time a change stays uncommitted, as ext4."""

# --- free space -------------------------------------------------------------------------------
RESERVE_FRACTION: Final = 100
"""1 % of the blocks ...."""
RESERVE_BLOCKS_MAX: Final = 1024
RESERVE_BLOCKS_MIN: Final = 24
"""... between these, are kept for operations that free space: deletes work on a full disk."""
PREALLOCATE_START_BYTES: Final = 64 * KIB
"""Files that grow past this size are given speculative blocks past EOF."""
PREALLOCATE_BYTES_MAX: Final = 4 * MIB
EXTENT_BLOCKS_MAX: Final = 1 << 30
"""Length field of an extent."""

# --- reclaim ----------------------------------------------------------------------------------
MEMORY_BYTES_DEFAULT: Final = 256 * MIB
MEMORY_BYTES_MIN: Final = 4 * MIB
RESIDENT_BASE_BYTES: Final = 64 * MIB
"""What the daemon takes beside its budget: interpreter, modules, buffers. The default budget leaves it in a cgroup."""
OPERATION_FRACTION: Final = 16
"""An operation that can leave off stages at most this part of the budget: it becomes dirty all at once ...."""
OPERATION_BLOCKS_MIN: Final = 64
"""... but so many blocks in any case: some ten pieces of a write, or extents that are freed."""
INODE_COST_BYTES: Final = 320
"""An in-core inode with its share of the table that finds it, measured with tracemalloc."""
DIRECTORY_COST_BYTES: Final = 160
"""What an in-core directory takes more: its place in the list of directories that the kernel knows."""
PAST_EOF_COST_BYTES: Final = 240
"""A file in the list of those with blocks past EOF."""
DEBTS_FRACTION: Final = 16
"""At most this part of the budget is for access times that inodes owe which are not in core any more."""
DEBTS_PLACES_A_TURN: Final = 1024
"""Places of the table of debts that are looked at in one go."""
MEMORY_SHORT: Final = 0.9
"""Memory is short, and the background reclaimer begins, above this part of what operations may use ...."""
MEMORY_RECLAIMED: Final = 0.8
"""... and it leaves off at this part."""
PRESSURE_FRACTION: Final = 8
"""At each event of the kernel's memory pressure this part of what is in use is given back; there is one every two
seconds at most while pressure lasts."""
WRITE_BACK_FRACTION: Final = 8
"""Write-back begins when this part of the budget is dirty: half of what an operation that needs memory waits for."""
SPACE_SHORT_FRACTION: Final = 20
"""Space is short while less than this part of all blocks is free: then no batch of cleanups waits to grow."""
CLEANUP_DIRTY_FRACTION: Final = 8
"""Cleanup that nobody waits for adds no dirt while more than this part of the budget is dirty: half of what stops an
operation."""
WRITE_BACK_FACTOR: Final = 2
"""While too much is dirty, an operation that changes something waits until this many times as much as it makes dirty
has been written home: dirt becomes less with each operation, and a small one waits for little."""
DIRTY_WAIT_SECONDS_MAX: Final = 1.0
"""An operation that changes something waits for write-back no longer than this."""
WRITE_OUT_FRACTION: Final = 4
"""File data that no barrier has followed is at most this part of the budget, as page cache of the image ...."""
WRITE_OUT_BYTES_MIN: Final = 16 * MIB
"""... but so much in any case: a barrier costs a disk as much as some MiB of data ...."""
WRITE_OUT_BYTES_MAX: Final = 64 * MIB
"""... and no more than this: an fsync may have to wait for all of it, half a second at 150 MB/s."""
WRITE_OUT_START_FRACTION: Final = 4
"""A barrier begins at this part of it, so that a disk that keeps up never has a request wait."""
INACTIVATION_EXTENTS_STEP: Final = 64
"""Extents freed by one inactivation transaction: bounds its credits and its time."""
INACTIVATION_RETRIES_MAX: Final = 5
"""Failed attempts before an inode is quarantined."""
SHRINK_BATCH: Final = 64
"""Objects one direct reclaim looks for at a time."""
SHRINK_LOOKS_MAX: Final = 4096
"""Cache entries one shrinker call looks at: bounds its time."""
GC_WORKERS_DEFAULT: Final = 2
GC_WORKERS_MAX: Final = 64
GC_TURN_NS: Final = 1_000_000
"""A worker yields to foreground requests after this long."""
GC_BATCH: Final = 64
"""Inodes a worker takes at a time: one chunk of the inode table."""
GC_DELAY_SECONDS: Final = 0.004
"""How long a batch may gather: one jiffy at 250 Hz, as XFS."""
GC_IN_CORE_MAX: Final = 256
"""In-core inodes in inodegc's queues beyond which orphans wait in the orphan table alone: four batches."""
GC_IN_CORE_LIMIT: Final = 1_000_000
"""The most that it can be set to."""
ORPHAN_BLOCKS_MAX: Final = 1 << 48
"""Held by one orphan, whatever a damaged record or slot says: the largest file has less."""
GC_RETRY_NS: Final = 10_000_000
"""Wait before a failed inactivation is tried again; four times as long after each further failure ...."""
GC_RETRY_NS_MAX: Final = 10_000_000_000
"""... but no longer than this."""
GC_LOOK_SECONDS: Final = 0.001
"""While requests stream in, workers stand back, and look so often whether there has been a pause ...."""
GC_LOOKS_MAX: Final = 20
"""... but take a batch after so many looks: then cleaning up has an eighth of the time ...."""
GC_STAND_BACK_INODES: Final = 4096
"""... and its full share when the backlog is longer than this: a quarter of what is throttled."""
GC_RATE_MIN: Final = 0.1
"""Slowest pace that can be asked for: a transaction in ten seconds."""
PACE_BURST_NS: Final = 100_000_000
"""A tenth of a second's worth of transactions may be made up for after a rest."""
FORGETS_AT_ONCE: Final = 1024
"""Forgets counted in one go: at a microsecond or two each, requests wait no longer for it than for a commit."""

# --- throttling of the foreground --------------------------------------------------------------
THROTTLE_INODES: Final = 16_384
"""Inodes that may wait for inactivation before whoever adds more has to wait: a good second of work, 5 MiB."""
THROTTLE_BYTES: Final = 1 << 50
"""Bytes that they may hold: space that is needed is freed first anyway, so there is no reason to wait for it alone."""
THROTTLE_EXTENTS: Final = 1 << 20
"""Extents that they may have: some ten seconds of work."""
THROTTLE_AGE_SECONDS: Final = 60.0
"""Age of the oldest: the workers do not keep up."""
THROTTLE_DEADLINE_SECONDS: Final = 2.0
"""Nobody waits longer than this: throttling slows down, it never stops."""
FREEZE_SECONDS_DEFAULT: Final = 600.0
"""Longer than a snapshot takes, and than most copies; a freeze that was forgotten holds up everything that writes."""

# --- space -------------------------------------------------------------------------------------
PREALLOCATION_LIFETIME_SECONDS: Final = 300.0
"""Speculative blocks past EOF of an open file that was not written to for so long are freed; as XFS."""
UNMOUNT_DRAIN_SECONDS: Final = 30.0
"""How long an unmount cleans up before it leaves the rest to the next mount, in the orphan table."""


# --- requests ---------------------------------------------------------------------------------
HANDLERS_MAX: Final = 99
"""Requests that are handled at once; those that only wait for the next one are among them."""
POLL_US_DEFAULT: Final = 50
"""Longest time that the next request is looked out for: about what a client takes between two requests."""
POLL_US_MAX: Final = 1000
"""A millisecond: other tasks wait for as long at most."""
