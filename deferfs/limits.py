"""Every bound of deferfs, with its unit and the reason for its value."""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB

# --- format -----------------------------------------------------------------------------------
BLOCK_SIZE_BYTES_MIN: Final = 1 * KIB
"""A smaller inode-table block would hold a single record."""
BLOCK_SIZE_BYTES_MAX: Final = 64 * KIB
"""The largest page size in use; the second superblock is at this offset."""
BLOCK_SIZE_BYTES_DEFAULT: Final = 4 * KIB
"""The page size of most machines."""
NAME_BYTES_MAX: Final = 255
"""NAME_MAX of POSIX and Linux."""
SYMLINK_BYTES_MAX: Final = 4095
"""PATH_MAX without its terminator."""
LINKS_MAX: Final = 65_000
"""Maximum of hard links, as on ext4: far from an overflow of the link count."""
FILE_BYTES_MAX: Final = 1 << 44
"""16 TiB: as ext4 with 4 KiB blocks; logical block numbers stay far below the tree's key space."""
RDEV_MAX: Final = 0xFFFF_FFFF
"""Device numbers in FUSE and in the kernel's user interfaces have 32 bits."""
XATTR_NAME_BYTES_MAX: Final = 255
"""XATTR_NAME_MAX of Linux."""
XATTR_VALUE_BYTES_MAX: Final = 64 * KIB
"""XATTR_SIZE_MAX of Linux."""
XATTR_BYTES_MAX: Final = 256 * KIB
"""All attributes of one inode together: bounds the credits of one operation."""
LABEL_BYTES_MAX: Final = 32
"""Size of the label field in the superblock."""
DIRECTORY_WINDOW: Final = 256
"""Keys that the entry of a name may have: it takes the first free one, starting at the hash of the name."""
DIRECTORY_ENTRIES_MAX: Final = 1 << 28
"""Entries of a directory with 31-bit keys: one per eight keys. A lookup in a full directory scans 32 further entries,
and with random hashes one of 10^124 such directories has a full window."""
BITMAP_REGIONS_MAX: Final = 8
"""Each growth of an image may add one region of bitmaps."""
SPARES_MAX: Final = 12
"""Spare superblocks: those at 1 MiB x 3^k reach 57 GiB, and one is at the end."""
SPARES_IMAGE_BYTES_MIN: Final = 8 * MIB
"""Smaller filesystems have no spare superblocks: one block each, up to 64 KiB, would be a large part of them."""

# --- journal ----------------------------------------------------------------------------------
JOURNAL_BYTES_DEFAULT: Final = 64 * MIB
"""Size of the log of images from 1 GiB on: transactions of 21 MiB."""
JOURNAL_BYTES_MAX: Final = 1 * GIB
"""Recovery reads all of the log, twice, and keeps 24 bytes for each image in it: 24 MiB with blocks of 1 KiB."""
JOURNAL_BLOCKS_MIN: Final = 256
"""Smallest log: a third of it holds the largest single operation with 1 KiB blocks."""
TRANSACTION_FRACTION: Final = 3
"""One compound transaction takes at most 1/3 of the log: below half (the XFS rule), so that the next transaction always
fits while the first is checkpointed. An operation that is alone in its transaction may take up to half."""
CHECKPOINT_START_FRACTION: Final = 4
"""Checkpoints start when 1/4 of the log is in use, so that a foreground operation seldom waits."""
COMMIT_SECONDS_DEFAULT: Final = 5
"""Longest time a change stays uncommitted, as ext4."""

# --- free space -------------------------------------------------------------------------------
RESERVE_FRACTION: Final = 100
"""1/100 of the blocks is reserved for operations that free space, so that deletes work on a full disk."""
RESERVE_BLOCKS_MAX: Final = 1024
"""Upper bound of the reserve for operations that free space."""
RESERVE_BLOCKS_MIN: Final = 24
"""Lower bound of the reserve for operations that free space."""
PREALLOCATE_START_BYTES: Final = 64 * KIB
"""Files that grow past this size are given speculative blocks past EOF."""
PREALLOCATE_BYTES_MAX: Final = 4 * MIB
"""Upper bound of the speculative blocks of one file, in bytes."""
EXTENT_BLOCKS_MAX: Final = 1 << 30
"""Bound of the length field of an extent."""

INODE_TABLE_FRACTION: Final = 64
"""Data are allocated beyond the first 1/64 of the blocks while others are free, so that the inode table grows in one
piece there, and its blocks are read and written together. ext4 keeps 1/64 by default, 256 bytes in 16 KiB."""

# --- reading metadata ---------------------------------------------------------------------------
FETCH_BYTES_MAX: Final = 128 * KIB
"""Largest read of metadata blocks that are fetched together: the default readahead of Linux."""
FETCH_GAP_BYTES: Final = 32 * KIB
"""Blocks at most so far apart are fetched by one read: on every disk, another request takes longer than these bytes."""

# --- reclaim ----------------------------------------------------------------------------------
MEMORY_BYTES_DEFAULT: Final = 256 * MIB
"""Budget for inodes and blocks outside small cgroups."""
MEMORY_BYTES_MIN: Final = 2 * MIB
"""The smallest budget that can be set: 32 of the largest blocks, as in the smallest that `deferfs.crash` explores."""
RESIDENT_BASE_BYTES: Final = 64 * MIB
"""Memory of the daemon outside its budget: interpreter, modules, buffers. In a cgroup the default budget leaves it."""
OPERATION_FRACTION: Final = 16
"""An operation that can be split stages at most 1/16 of the budget, as all of it becomes dirty at once."""
OPERATION_BLOCKS_MIN: Final = 64
"""Blocks that such an operation may stage with any budget: about ten parts of a write, or freed extents."""
INODE_COST_BYTES: Final = 320
"""An in-core inode with its share of the hash table, measured with tracemalloc."""
DIRECTORY_COST_BYTES: Final = 160
"""Additional memory of an in-core directory: its entry in the list of directories known to the kernel."""
PAST_EOF_COST_BYTES: Final = 240
"""Additional memory of a file with blocks past EOF: its entry in the list of these."""
DEBTS_FRACTION: Final = 16
"""1/16 of the budget, at most, is for owed access times of inodes that have left core."""
DEBTS_SLOTS_A_SCAN: Final = 1024
"""Slots of the table of debts scanned at a time."""
PAYMENT_WINDOWS: Final = 1024
"""Windows of the inode table that are paid for each look through the table of debts: looking takes a tenth of the time
then, even when each of them has one debt only."""
MEMORY_SHORT: Final = 0.9
"""Memory is short, and background reclaim starts, above this fraction of what operations may use."""
MEMORY_RECLAIMED: Final = 0.8
"""Background reclaim stops at this fraction of what operations may use."""
PRESSURE_FRACTION: Final = 8
"""1/8 of the memory in use is released at each event of the kernel's memory pressure, which come at most every two
seconds while pressure lasts."""
WRITE_BACK_FRACTION: Final = 8
"""Writeback starts when 1/8 of the budget is dirty: half of the limit at which operations wait."""
SPACE_SHORT_FRACTION: Final = 20
"""Space is short while less than 1/20 of all blocks is free: cleanups are then not delayed for batching."""
CLEANUP_DIRTY_FRACTION: Final = 8
"""Background cleanup pauses while more than 1/8 of the budget is dirty: half of the limit at which operations wait."""
WRITE_BACK_FACTOR: Final = 2
"""While too much is dirty, an operation that changes something waits until twice as much as it makes dirty has been
written home: dirty memory decreases with each operation, and a small one waits briefly."""
DIRTY_WAIT_SECONDS_MAX: Final = 1.0
"""Longest time that an operation that changes something waits for writeback."""
WRITE_OUT_FRACTION: Final = 4
"""1/4 of the budget is the limit on file data written without a later barrier: it takes page cache of the image."""
WRITE_OUT_BYTES_MIN: Final = 16 * MIB
"""Lower bound of the limit on file data without a barrier: a barrier costs a disk as much as a few MiB of data."""
WRITE_OUT_BYTES_MAX: Final = 32 * MIB
"""Upper bound of the limit on file data without a barrier: an fsync may have to wait for twice as much, what a barrier
under way and its own commit write: half a second at 125 MB/s."""
WRITE_OUT_WAITS_BUDGET_MIN: Final = 16 * MIB
"""Requests wait for a barrier only with such a budget: each holds its buffers meanwhile, some 30 MiB together, more
than a smaller budget allows beyond itself."""
WRITE_OUT_START_FRACTION: Final = 4
"""A barrier begins at 1/4 of the limit, so that requests never wait for a disk that keeps up."""
INACTIVATION_EXTENTS_STEP: Final = 64
"""Extents freed by one inactivation transaction: bounds its credits and its time."""
INACTIVATION_RETRIES_MAX: Final = 5
"""Failed attempts after which an inode is quarantined."""
SHRINK_BATCH: Final = 64
"""Inodes that one call of the shrinker collects for inactivation."""
SHRINK_LOOKS_MAX: Final = 4096
"""Cache entries that one call of the shrinker visits: bounds its time."""
GC_WORKERS_DEFAULT: Final = 2
"""One worker can work while the other one waits for IO."""
GC_WORKERS_MAX: Final = 64
"""The largest pool that can be set; all workers share one event loop."""
TURN_NS: Final = 300_000
"""Time that one background task (cleanup, payment, reclaim, a commit, a checkpoint) takes from requests at once: about
three requests. An operation of five requests may wait for as many turns of each."""
WAITED_TURNS: Final = 3
"""A turn of cleanup that an operation or a barrier waits for lasts as long as this many: shorter ones would make it
wait for others more often."""
GC_PASSES_MAX: Final = 8
"""Passes of the event loop in a row that cleanup yields to queued requests before it continues."""
GC_BATCH: Final = 64
"""Inodes that a worker takes at a time: one chunk of the inode table."""
GC_DELAY_SECONDS: Final = 0.004
"""How long inodes are gathered into a batch: one jiffy at 250 Hz, as in XFS."""
GC_IN_CORE_MAX: Final = 256
"""Queued in-core inodes beyond which orphans wait only in the orphan table: four batches."""
GC_IN_CORE_LIMIT: Final = 1_000_000
"""Upper bound of the setting `gc_in_core`: 320 MB of in-core inodes."""
ORPHAN_BLOCKS_MAX: Final = 1 << 48
"""Blocks counted for one orphan, whatever a damaged record or slot says: the largest file has fewer."""
GC_RETRY_NS: Final = 10_000_000
"""Delay before the first retry of a failed inactivation; each further failure multiplies it by four."""
GC_RETRY_NS_MAX: Final = 10_000_000_000
"""Upper bound of the delay before a retry."""
GC_LOOK_SECONDS: Final = 0.001
"""Interval between checks for a pause in requests, before which workers stand back."""
GC_LOOKS_MAX: Final = 20
"""Checks after which a worker takes a batch anyway: about 1/8 duty cycle."""
GC_STAND_BACK_INODES: Final = 4096
"""Backlog above which workers do not stand back: a quarter of the one that is throttled."""
GC_RATE_MIN: Final = 0.1
"""Lowest configurable pace: one transaction in ten seconds."""
GC_PACE_LOOK_SECONDS: Final = 0.05
"""Interval at which a worker that waits for its pace looks whether memory or space has become short."""
PACE_BURST_NS: Final = 100_000_000
"""Unused time of a pace that is credited: transactions of a tenth of a second."""
FORGETS_AT_ONCE: Final = 512
"""Forgets counted at a time: one or two microseconds each, so a turn of a millisecond at most."""

# --- throttling of the foreground --------------------------------------------------------------
THROTTLE_INODES: Final = 16_384
"""Queued inodes above which operations that may orphan one wait: a good second of work, 5 MiB."""
THROTTLE_BYTES: Final = 1 << 50
"""Bytes held by queued inodes above which they wait. Practically no limit: when space is needed it is freed first."""
THROTTLE_EXTENTS: Final = 1 << 20
"""Extents of queued inodes above which they wait: about ten seconds of work."""
THROTTLE_AGE_SECONDS: Final = 60.0
"""Age of the oldest queued inode above which they wait: the workers do not keep up."""
THROTTLE_DEADLINE_SECONDS: Final = 2.0
"""Longest wait: throttling slows operations down, it never stops them."""
FREEZE_SECONDS_DEFAULT: Final = 600.0
"""Limit of a freeze: longer than a snapshot takes, and than most copies. A forgotten freeze blocks all writers."""

# --- space -------------------------------------------------------------------------------------
PREALLOCATION_LIFETIME_SECONDS: Final = 300.0
"""Speculative blocks past EOF of an open file are freed when it has not grown for this long; as in XFS."""
TRIM_LOOKS_PER_LIFETIME: Final = 4
"""Looks for files that have not grown, in that time: blocks are kept for 1 1/4 of it at most."""
TRIM_LOOK_SECONDS_MIN: Final = 0.05
"""Shortest interval between two of these looks."""
UNMOUNT_DRAIN_SECONDS: Final = 30.0
"""How long an unmount cleans up before it leaves the rest to the next mount, in the orphan table."""


# --- requests ---------------------------------------------------------------------------------
HANDLERS_MAX: Final = 99
"""Requests handled at once, including readers that wait for the next one."""
POLL_US_DEFAULT: Final = 50
"""Longest busy polling for the next request: about the time a client takes between two requests."""
POLL_US_MAX: Final = 1000
"""Upper bound of the polling time, 1 ms: other tasks wait for as long."""
