"""Every problem that the check can find: a number that never changes its meaning, a short code, what is wrong, and what
the repair does about it.

Numbers are grouped by structure: 1xx superblocks, 2xx log, 3xx free space, 4xx inode table, 5xx
inodes, 6xx block mappings and trees, 7xx directories and links, 8xx extended attributes, 9xx
orphans.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of problem. `meaning` is what is wrong, without saying where, `repair` what is done about it."""

    number: int
    code: str
    meaning: str
    repair: str


_ALL: Final[dict[int, Kind]] = {}


def _kind(number: int, code: str, meaning: str, repair: str) -> Kind:
    assert number not in _ALL, "a problem number was given twice"
    return _ALL.setdefault(number, Kind(number, code, meaning, repair))


SUPERBLOCK_COPY: Final = _kind(
    101,
    "superblock-copy",
    "a superblock copy is damaged although the filesystem was left clean",
    "written again from the other copy",
)
SUPERBLOCK_DISAGREE: Final = _kind(
    102,
    "superblock-disagree",
    "the superblock copies differ in what never changes",
    "the constants that fit the image better are written to both copies",
)
SUPERBLOCK_LAYOUT: Final = _kind(
    103,
    "superblock-layout",
    "reserved area, bitmap regions and journal overlap or leave the image",
    "bitmaps and journal that overlap metadata are moved to free blocks",
)
SUPERBLOCK_ERRORS: Final = _kind(
    104,
    "superblock-errors",
    "an error was recorded while the filesystem was mounted",
    "the mark is removed when nothing else is wrong",
)

SUPERBLOCK_COUNTER: Final = _kind(
    105,
    "superblock-counter",
    "the sequence of the superblock or of transactions is near its end",
    "renumbered from the beginning",
)
SUPERBLOCK_LOST: Final = _kind(
    106,
    "superblock-lost",
    "no superblock copy can be used, and a spare one is taken",
    "both copies are written from the spare that fits the image best",
)
SPARE_DAMAGED: Final = _kind(107, "spare-damaged", "a spare superblock cannot be used", "written again")
SPARE_DISAGREE: Final = _kind(
    108, "spare-disagree", "a spare superblock disagrees with the superblock", "written again"
)
SPARE_PLACE: Final = _kind(
    109,
    "spare-place",
    "a spare superblock lies outside the image, in a fixed area, at no multiple of 64 KiB, or twice",
    "dropped, and another one written where a block is free",
)

LOG_GAP: Final = _kind(
    201,
    "log-gap",
    "a damaged transaction is followed by a newer one",
    "one wrong bit is corrected; else what comes before the damage is replayed, the rest is dropped",
)
LOG_HOME: Final = _kind(
    202,
    "log-home",
    "a logged image belongs to a block that is never logged, or outside the image",
    "the image is not replayed",
)
LOG_NOT_EMPTY: Final = _kind(
    203,
    "log-not-empty",
    "the filesystem is marked clean but its log holds transactions",
    "the log is emptied; a clean image needs none of it",
)

BITMAP_DAMAGED: Final = _kind(
    301, "bitmap-damaged", "a free-space bitmap cannot be used", "rebuilt from the blocks found in use"
)
BITMAP_OWNER: Final = _kind(
    302, "bitmap-owner", "a bitmap belongs to another group", "rebuilt from the blocks found in use"
)
BITMAP_COUNT: Final = _kind(
    303, "bitmap-count", "a bitmap's count disagrees with its bits", "rebuilt from the blocks found in use"
)
BITMAP_TAIL: Final = _kind(
    304, "bitmap-tail", "bits beyond the end of the image are not set", "rebuilt from the blocks found in use"
)
BLOCK_MARKED_FREE: Final = _kind(
    305, "block-marked-free", "blocks in use are marked free in the bitmap", "marked as used"
)
BLOCK_LEAKED: Final = _kind(306, "block-leaked", "blocks marked in use belong to nothing", "marked as free")
BLOCK_SHARED: Final = _kind(
    307,
    "block-shared",
    "blocks are claimed more than once",
    "metadata keeps the block, then the first file; other files get a copy",
)
BLOCK_UNREADABLE: Final = _kind(
    308,
    "block-unreadable",
    "the device cannot read a block",
    "what lay in the block counts as damaged, and goes to another block where it can",
)

INODE_FILE: Final = _kind(
    401,
    "inode-file",
    "the inode file cannot be read, so most of the image cannot be checked",
    "remapped from the records found by a scan of the image",
)
INODE_ROOT: Final = _kind(
    402,
    "inode-root",
    "the superblock names another first chunk than the inode file maps",
    "remapped from the records found by a scan of the image",
)
INODE_CHUNK_PARTIAL: Final = _kind(
    403,
    "inode-chunk-partial",
    "a chunk of the inode table is mapped only in part",
    "remapped from the records found by a scan of the image",
)
INODE_CHUNK_EMPTY: Final = _kind(
    404, "inode-chunk-empty", "a chunk of the inode table is mapped but holds no inode", "unmapped"
)
INODE_BITMAP_MISSING: Final = _kind(
    405, "inode-bitmap-missing", "an inode group with mapped chunks has no bitmap", "rebuilt from the records"
)
INODE_BITMAP_SPARE: Final = _kind(406, "inode-bitmap-spare", "an inode group without chunks has a bitmap", "unmapped")
INODE_BITMAP_DAMAGED: Final = _kind(
    407, "inode-bitmap-damaged", "an inode bitmap cannot be used", "rebuilt from the records"
)
INODE_MARKED_FREE: Final = _kind(
    408, "inode-marked-free", "an inode in use is marked free in its bitmap", "marked as used"
)
INODE_MARKED_USED: Final = _kind(
    409, "inode-marked-used", "a free inode is marked in use in its bitmap", "marked as free"
)
INODE_RECORD: Final = _kind(
    410,
    "inode-record",
    "an inode record is damaged",
    "one wrong bit is corrected; else kept if it fits the rest of the image, or rebuilt from its tree, or freed",
)
INODE_MISPLACED: Final = _kind(
    411,
    "inode-misplaced",
    "an inode record carries the number of another inode",
    "freed, after a scan of the image for the block that belongs there",
)
INODE_NOT_EMPTY: Final = _kind(412, "inode-not-empty", "a free inode record still holds something", "emptied")
INODE_SPECIAL: Final = _kind(
    413,
    "inode-special",
    "a reserved inode is not what it must be",
    "re-created; an unusable root directory keeps what its tree holds",
)
INTERNAL_UNWRITTEN: Final = _kind(
    414,
    "internal-unwritten",
    "the inode file or the orphan file maps unwritten blocks",
    "remapped from the records found; the orphan file is emptied",
)

INODE_MODE: Final = _kind(
    501, "inode-mode", "an inode has an impossible file type", "freed; bits that no mode has are cleared"
)
INODE_FORM: Final = _kind(
    502,
    "inode-form",
    "an inode's data has a form that its file type cannot have",
    "a file or symlink is freed, a directory starts empty, others lose the data",
)
INODE_INLINE: Final = _kind(
    503,
    "inode-inline",
    "an inode's inline area is malformed",
    "rewritten from its fields; bytes that they do not cover are cleared",
)
INODE_SIZE: Final = _kind(
    504,
    "inode-size",
    "an inode's size is impossible",
    "set to what is mapped or held; a symlink without its whole target is freed",
)
INODE_BLOCKS: Final = _kind(505, "inode-blocks", "an inode counts other blocks than it holds", "set to what it holds")
INODE_FLAGS: Final = _kind(506, "inode-flags", "an inode has unknown flags", "cleared")
INODE_RDEV: Final = _kind(507, "inode-rdev", "an inode that is no device has a device number", "cleared")
INODE_QUARANTINED: Final = _kind(
    508,
    "inode-quarantined",
    "an inode was set aside because its inactivation kept failing",
    "taken out of quarantine; without links, it is released",
)
INODE_FEATURE: Final = _kind(
    509,
    "inode-feature",
    "a directory has 31-bit keys, but the superblock lacks the feature flag of such directories",
    "the flag is set",
)
INODE_DEVICE: Final = _kind(
    510, "inode-device", "a device has a number of more than 32 bits", "cut down to the 32 bits that programs see"
)

EXTENT_ORDER: Final = _kind(601, "extent-order", "extents overlap or are out of order", "the later extent is dropped")
EXTENT_LENGTH: Final = _kind(
    602, "extent-length", "an extent has an impossible length or offset", "the extent is dropped"
)
EXTENT_FLAGS: Final = _kind(603, "extent-flags", "an extent has unknown flags", "the flags are cleared")
EXTENT_ADDRESS: Final = _kind(604, "extent-address", "an extent lies outside the image", "the extent is dropped")
EXTENT_PAST_EOF: Final = _kind(
    605,
    "extent-past-eof",
    "written blocks past the end of a file that is not being truncated",
    "the file is made as long as what is written",
)
NODE_DAMAGED: Final = _kind(
    611,
    "node-damaged",
    "a tree node cannot be used",
    "one wrong bit is corrected; else what the other nodes hold is built into a new tree",
)
NODE_OWNER: Final = _kind(
    612, "node-owner", "a tree node belongs to another inode", "what the other nodes hold is built into a new tree"
)
NODE_LEVEL: Final = _kind(
    613, "node-level", "a tree node is on the wrong level", "what the other nodes hold is built into a new tree"
)
NODE_KEYS: Final = _kind(
    614,
    "node-keys",
    "keys of a tree node are out of order or outside the range of its parent",
    "the entries are sorted into a new tree",
)
NODE_EMPTY: Final = _kind(
    615,
    "node-empty",
    "a tree node below the root, or not a leaf, is empty",
    "what the other nodes hold is built into a new tree",
)
NODE_ADDRESS: Final = _kind(
    616, "node-address", "a tree points outside the image", "what the other nodes hold is built into a new tree"
)

ENTRY_DAMAGED: Final = _kind(701, "entry-damaged", "a directory entry is malformed", "removed")
ENTRY_NAME: Final = _kind(
    702, "entry-name", "a name that no file may have", "removed; the inode goes to lost+found when it has no other name"
)
ENTRY_KEY: Final = _kind(
    703, "entry-key", "a directory entry is filed under a wrong or unsorted key", "filed under its own key"
)
ENTRY_DUPLICATE: Final = _kind(704, "entry-duplicate", "a directory holds a name twice", "one of the two is removed")
ENTRY_DEAD: Final = _kind(705, "entry-dead", "a directory entry names an inode not in use", "removed")
ENTRY_TYPE: Final = _kind(706, "entry-type", "a directory entry has another type than its inode", "corrected")
ENTRY_RESERVED: Final = _kind(707, "entry-reserved", "a directory entry names a reserved inode", "removed")
DIRECTORY_LINKED_TWICE: Final = _kind(
    708,
    "directory-linked-twice",
    "a directory has more than one name",
    "the name in the directory that it calls its parent is kept, the others are removed",
)
DIRECTORY_PARENT: Final = _kind(
    709, "directory-parent", "a directory's parent field is wrong", "set to the directory that names it"
)
DIRECTORY_SIZE: Final = _kind(
    710, "directory-size", "a directory counts other entries than it has", "set to what it has"
)
DIRECTORY_UNREACHABLE: Final = _kind(
    711,
    "directory-unreachable",
    "a directory cannot be reached from the root",
    "put into lost+found; a directory inside itself is taken out first",
)
DIRECTORY_REMOVED: Final = _kind(
    712, "directory-removed", "a removed directory still has entries", "put into lost+found"
)
LINK_COUNT: Final = _kind(713, "link-count", "an inode's link count is wrong", "set to the names found")
INODE_UNREACHABLE: Final = _kind(
    714, "inode-unreachable", "an inode with links is in no directory", "put into lost+found"
)

XATTR_BLOCK: Final = _kind(
    801,
    "xattr-block",
    "an xattr block cannot be used",
    "one wrong bit is corrected; else the attributes before the damage are kept",
)
XATTR_CHAIN: Final = _kind(
    802,
    "xattr-chain",
    "a chain of xattr blocks is too long or leaves the image",
    "the attributes before the damage are kept",
)
XATTR_DAMAGED: Final = _kind(
    803,
    "xattr-damaged",
    "the extended attributes of an inode are malformed",
    "the attributes before the damage are kept",
)
XATTR_ORDER: Final = _kind(
    804, "xattr-order", "extended attributes are unsorted or named twice", "sorted; of two the first is kept"
)
XATTR_LIMIT: Final = _kind(
    805, "xattr-limit", "extended attributes exceed a limit", "what exceeds the limit is removed"
)
XATTR_BOTH: Final = _kind(
    806,
    "xattr-both",
    "extended attributes both inline and in blocks",
    "joined, in the blocks where they do not fit inline",
)

ORPHAN_HOLE: Final = _kind(
    901, "orphan-hole", "the orphan file has a hole", "the orphans are released and the table is emptied"
)
ORPHAN_BLOCK: Final = _kind(
    902,
    "orphan-block",
    "a block of the orphan file cannot be used",
    "the orphans are released and the table is emptied",
)
ORPHAN_DEAD: Final = _kind(903, "orphan-dead", "an orphan slot names an inode not in use", "the slot is emptied")
ORPHAN_LINKED: Final = _kind(
    904, "orphan-linked", "an orphan slot names an inode that has links", "the slot is emptied"
)
ORPHAN_GENERATION: Final = _kind(
    905, "orphan-generation", "an orphan slot has another generation than its inode", "the orphan is released"
)
ORPHAN_SLOT: Final = _kind(
    906,
    "orphan-slot",
    "an inode and the orphan table disagree about its slot",
    "the orphan is released, or the field cleared when it has links",
)
ORPHAN_LOST: Final = _kind(907, "orphan-lost", "an inode without links is in no orphan slot", "released")
ORPHAN_BLOCKS: Final = _kind(
    908, "orphan-blocks", "an orphan slot counts other blocks than its inode holds", "the orphan is released"
)

CATALOGUE: Final[tuple[Kind, ...]] = tuple(_ALL.values())
"""All kinds, by number."""
