"""Every problem the check can find: a number that never changes its meaning, a short code, and a
sentence.

Numbers are grouped by structure: 1xx superblocks, 2xx log, 3xx free space, 4xx inode table, 5xx
inodes, 6xx block mappings and trees, 7xx directories and links, 8xx extended attributes, 9xx
orphans.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of problem. `meaning` is what is wrong, without saying where."""

    number: int
    code: str
    meaning: str


_ALL: Final[dict[int, Kind]] = {}


def _kind(number: int, code: str, meaning: str) -> Kind:
    assert number not in _ALL, "a problem number was given twice"
    return _ALL.setdefault(number, Kind(number, code, meaning))


SUPERBLOCK_COPY: Final = _kind(
    101, "superblock-copy", "a superblock copy is damaged although the filesystem was left clean"
)
SUPERBLOCK_DISAGREE: Final = _kind(102, "superblock-disagree", "the superblock copies differ in what never changes")
SUPERBLOCK_LAYOUT: Final = _kind(
    103, "superblock-layout", "reserved area, bitmap regions and journal overlap or leave the image"
)
SUPERBLOCK_ERRORS: Final = _kind(104, "superblock-errors", "an error was recorded while the filesystem was mounted")

LOG_GAP: Final = _kind(201, "log-gap", "a damaged transaction is followed by a newer one")
LOG_HOME: Final = _kind(202, "log-home", "a logged image belongs to a block that is never logged, or outside the image")
LOG_NOT_EMPTY: Final = _kind(203, "log-not-empty", "the filesystem is marked clean but its log holds transactions")

BITMAP_DAMAGED: Final = _kind(301, "bitmap-damaged", "a free-space bitmap cannot be used")
BITMAP_OWNER: Final = _kind(302, "bitmap-owner", "a bitmap belongs to another group")
BITMAP_COUNT: Final = _kind(303, "bitmap-count", "a bitmap's count disagrees with its bits")
BITMAP_TAIL: Final = _kind(304, "bitmap-tail", "bits beyond the end of the image are not set")
BLOCK_MARKED_FREE: Final = _kind(305, "block-marked-free", "blocks in use are marked free in the bitmap")
BLOCK_LEAKED: Final = _kind(306, "block-leaked", "blocks marked in use belong to nobody")
BLOCK_SHARED: Final = _kind(307, "block-shared", "blocks are claimed more than once")
BLOCK_UNREADABLE: Final = _kind(308, "block-unreadable", "the device cannot read a block")

INODE_FILE: Final = _kind(401, "inode-file", "the inode file cannot be read, so most of the image cannot be checked")
INODE_ROOT: Final = _kind(402, "inode-root", "the superblock names another first chunk than the inode file maps")
INODE_CHUNK_PARTIAL: Final = _kind(403, "inode-chunk-partial", "a chunk of the inode table is mapped only in part")
INODE_CHUNK_EMPTY: Final = _kind(404, "inode-chunk-empty", "a chunk of the inode table is mapped but holds no inode")
INODE_BITMAP_MISSING: Final = _kind(405, "inode-bitmap-missing", "an inode group with mapped chunks has no bitmap")
INODE_BITMAP_SPARE: Final = _kind(406, "inode-bitmap-spare", "an inode group without chunks has a bitmap")
INODE_BITMAP_DAMAGED: Final = _kind(407, "inode-bitmap-damaged", "an inode bitmap cannot be used")
INODE_MARKED_FREE: Final = _kind(408, "inode-marked-free", "an inode in use is marked free in its bitmap")
INODE_MARKED_USED: Final = _kind(409, "inode-marked-used", "a free inode is marked in use in its bitmap")
INODE_RECORD: Final = _kind(410, "inode-record", "an inode record is damaged")
INODE_MISPLACED: Final = _kind(411, "inode-misplaced", "an inode record carries the number of another inode")
INODE_NOT_EMPTY: Final = _kind(412, "inode-not-empty", "a free inode record still holds something")
INODE_SPECIAL: Final = _kind(413, "inode-special", "a reserved inode is not what it must be")
INTERNAL_UNWRITTEN: Final = _kind(414, "internal-unwritten", "the inode file or the orphan file maps unwritten blocks")

INODE_MODE: Final = _kind(501, "inode-mode", "an inode has an impossible file type")
INODE_FORM: Final = _kind(502, "inode-form", "an inode's data has a form that its file type cannot have")
INODE_INLINE: Final = _kind(503, "inode-inline", "an inode's inline area is malformed")
INODE_SIZE: Final = _kind(504, "inode-size", "an inode's size is impossible")
INODE_BLOCKS: Final = _kind(505, "inode-blocks", "an inode counts other blocks than it holds")
INODE_FLAGS: Final = _kind(506, "inode-flags", "an inode has unknown flags")
INODE_RDEV: Final = _kind(507, "inode-rdev", "an inode that is no device has a device number")
INODE_QUARANTINED: Final = _kind(
    508, "inode-quarantined", "an inode was set aside because its inactivation kept failing"
)

EXTENT_ORDER: Final = _kind(601, "extent-order", "extents overlap or are out of order")
EXTENT_LENGTH: Final = _kind(602, "extent-length", "an extent has an impossible length or offset")
EXTENT_FLAGS: Final = _kind(603, "extent-flags", "an extent has unknown flags")
EXTENT_ADDRESS: Final = _kind(604, "extent-address", "an extent lies outside the image")
EXTENT_PAST_EOF: Final = _kind(
    605, "extent-past-eof", "written blocks past the end of a file that is not being truncated"
)
NODE_DAMAGED: Final = _kind(611, "node-damaged", "a tree node cannot be used")
NODE_OWNER: Final = _kind(612, "node-owner", "a tree node belongs to another inode")
NODE_LEVEL: Final = _kind(613, "node-level", "a tree node is on the wrong level")
NODE_KEYS: Final = _kind(614, "node-keys", "keys of a tree node are out of order or outside the range of its parent")
NODE_EMPTY: Final = _kind(615, "node-empty", "a tree node below the root, or not a leaf, is empty")
NODE_ADDRESS: Final = _kind(616, "node-address", "a tree points outside the image")

ENTRY_DAMAGED: Final = _kind(701, "entry-damaged", "a directory entry is malformed")
ENTRY_NAME: Final = _kind(702, "entry-name", "a name that no file may have")
ENTRY_KEY: Final = _kind(703, "entry-key", "a directory entry is filed under a wrong or unsorted key")
ENTRY_DUPLICATE: Final = _kind(704, "entry-duplicate", "a directory holds a name twice")
ENTRY_DEAD: Final = _kind(705, "entry-dead", "a directory entry names an inode not in use")
ENTRY_TYPE: Final = _kind(706, "entry-type", "a directory entry has another type than its inode")
ENTRY_RESERVED: Final = _kind(707, "entry-reserved", "a directory entry names a reserved inode")
DIRECTORY_LINKED_TWICE: Final = _kind(708, "directory-linked-twice", "a directory has more than one name")
DIRECTORY_PARENT: Final = _kind(709, "directory-parent", "a directory's parent field is wrong")
DIRECTORY_SIZE: Final = _kind(710, "directory-size", "a directory counts other entries than it has")
DIRECTORY_UNREACHABLE: Final = _kind(711, "directory-unreachable", "a directory cannot be reached from the root")
DIRECTORY_REMOVED: Final = _kind(712, "directory-removed", "a removed directory still has entries")
LINK_COUNT: Final = _kind(713, "link-count", "an inode's link count is wrong")
INODE_UNREACHABLE: Final = _kind(714, "inode-unreachable", "an inode with links is in no directory")

XATTR_BLOCK: Final = _kind(801, "xattr-block", "an xattr block cannot be used")
XATTR_CHAIN: Final = _kind(802, "xattr-chain", "a chain of xattr blocks is too long or leaves the image")
XATTR_DAMAGED: Final = _kind(803, "xattr-damaged", "the extended attributes of an inode are malformed")
XATTR_ORDER: Final = _kind(804, "xattr-order", "extended attributes are unsorted or named twice")
XATTR_LIMIT: Final = _kind(805, "xattr-limit", "extended attributes exceed a limit")
XATTR_BOTH: Final = _kind(806, "xattr-both", "extended attributes both inline and in blocks")

ORPHAN_HOLE: Final = _kind(901, "orphan-hole", "the orphan file has a hole")
ORPHAN_BLOCK: Final = _kind(902, "orphan-block", "a block of the orphan file cannot be used")
ORPHAN_DEAD: Final = _kind(903, "orphan-dead", "an orphan slot names an inode not in use")
ORPHAN_LINKED: Final = _kind(904, "orphan-linked", "an orphan slot names an inode that has links")
ORPHAN_GENERATION: Final = _kind(905, "orphan-generation", "an orphan slot has another generation than its inode")
ORPHAN_SLOT: Final = _kind(906, "orphan-slot", "an inode and the orphan table disagree about its slot")
ORPHAN_LOST: Final = _kind(907, "orphan-lost", "an inode without links is in no orphan slot")
ORPHAN_BLOCKS: Final = _kind(908, "orphan-blocks", "an orphan slot counts other blocks than its inode holds")

CATALOGUE: Final[tuple[Kind, ...]] = tuple(_ALL.values())
"""All kinds, by number."""
