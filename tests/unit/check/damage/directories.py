"""Entries, names, parents, links."""

from __future__ import annotations

import stat

from deferfs.ondisk.directory import name_key, pack_entry, unpack_entry
from deferfs.ondisk.inode import FLAG_KEYS31, FORM_ENTRIES, ROOT_INO
from deferfs.ondisk.node import DirectoryNode
from tests.unit.check.builder import Entry
from tests.unit.check.damage import case
from tests.unit.check.image import Image
from tests.unit.check.sample import BIG, DIRECTORY, EXTENTS, FIFO, FILES, ORPHAN, ORPHAN_DIRECTORY, SMALL, SUBDIRECTORY

_UNUSED = 50
_DIRECTORY_TYPE, _FILE_TYPE = 4, 8


def _entries(image: Image, ino: int) -> dict[bytes, Entry]:
    return {value[9:]: (key, value) for key, value in image.inode(ino).entries}


def _put_entries(image: Image, ino: int, entries: list[Entry], **fields: object) -> None:
    image.change_inode(ino, entries=tuple(sorted(entries)), **{"size": len(entries), **fields})


def _entry(image: Image, directory: int, name: bytes, ino: int, file_type: int) -> Entry:
    return name_key(image.fmt, name, image.inode(directory).flags), pack_entry(ino, file_type, name)


def _add(image: Image, ino: int, *entries: Entry, **fields: object) -> None:
    _put_entries(image, ino, [*image.inode(ino).entries, *entries], **fields)


@case("entry-damaged")
def entry_without_a_name(image: Image) -> None:
    _add(image, DIRECTORY, (1 << 40, b"12345678"))


@case("inode-inline", "entry-damaged")
def entry_cut_off(image: Image) -> None:
    entries = list(image.inode(DIRECTORY).entries)
    _put_entries(image, DIRECTORY, [*entries, (1 << 63, b"")])
    # the entry says that it goes on after the inline data
    length = image.inode(DIRECTORY).data_bytes()
    image.patch_inode(DIRECTORY, 128 + length - 2, b"\x40\0")


@case("entry-name", "link-count")
def empty_name(image: Image) -> None:
    _add(image, DIRECTORY, _entry(image, DIRECTORY, b"", SMALL, _FILE_TYPE))


@case("entry-name", "link-count")
def name_with_a_slash(image: Image) -> None:
    _add(image, DIRECTORY, _entry(image, DIRECTORY, b"a/b", SMALL, _FILE_TYPE))


@case("entry-name", "link-count")
def name_with_a_zero(image: Image) -> None:
    _add(image, DIRECTORY, _entry(image, DIRECTORY, b"a\0b", SMALL, _FILE_TYPE))


@case("entry-name", "link-count")
def dot_and_dot_dot(image: Image) -> None:
    names = (b".", b"..")
    _add(image, DIRECTORY, *(_entry(image, DIRECTORY, name, SMALL, _FILE_TYPE) for name in names))


@case("entry-name", "link-count")
def name_too_long(image: Image) -> None:
    _add(image, SUBDIRECTORY, _entry(image, SUBDIRECTORY, b"n" * 256, SMALL, _FILE_TYPE))


@case("entry-key")
def name_under_a_wrong_key(image: Image) -> None:
    entries = _entries(image, DIRECTORY)
    key, value = entries[b"sub"]
    _put_entries(image, DIRECTORY, [entries[b"hard link"], (key + 256, value)])


@case("entry-key")
def name_under_a_key_of_the_other_kind(image: Image) -> None:
    entries = _entries(image, DIRECTORY)
    wide = name_key(image.fmt, b"sub", 0), entries[b"sub"][1]
    _put_entries(image, DIRECTORY, [entries[b"hard link"], wide])


@case("entry-key")
def directory_of_31_bit_keys_without_its_flag(image: Image) -> None:
    image.change_inode(BIG, flags=0)


@case("entry-key")
def directory_of_55_bit_hashes_with_the_flag_of_the_other_kind(image: Image) -> None:
    image.change_inode(FILES, flags=FLAG_KEYS31)


@case("entry-key")
def unsorted_entries(image: Image) -> None:
    image.change_inode(DIRECTORY, entries=tuple(reversed(image.inode(DIRECTORY).entries)))


@case()
def names_with_equal_hashes(image: Image) -> None:
    entries = _entries(image, DIRECTORY)
    key, value = entries[b"sub"]
    _put_entries(image, DIRECTORY, [entries[b"hard link"], (key + 255, value)])


@case()
def names_with_equal_hashes_of_55_bits(image: Image) -> None:
    key, value = _entry(image, SUBDIRECTORY, b"fifo", FIFO, 1)
    image.change_inode(FIFO, nlink=2)
    _add(image, SUBDIRECTORY, (key + 255, value))


@case("entry-duplicate", "link-count")
def name_twice(image: Image) -> None:
    key, value = _entries(image, DIRECTORY)[b"hard link"]
    _add(image, DIRECTORY, (key + 1, value))


@case("entry-duplicate", "link-count")
def name_twice_at_both_ends_of_its_window(image: Image) -> None:
    key, value = _entries(image, DIRECTORY)[b"hard link"]
    _add(image, DIRECTORY, (key + 255, value))


@case("entry-dead")
def name_of_a_free_inode(image: Image) -> None:
    _add(image, DIRECTORY, _entry(image, DIRECTORY, b"dead", _UNUSED, _FILE_TYPE))


@case("entry-dead")
def name_of_an_impossible_inode(image: Image) -> None:
    _add(image, DIRECTORY, _entry(image, DIRECTORY, b"dead", (1 << 64) - 1, _FILE_TYPE))


@case("entry-dead")
def name_of_inode_zero(image: Image) -> None:
    _add(image, DIRECTORY, _entry(image, DIRECTORY, b"dead", 0, _FILE_TYPE))


@case("entry-type")
def name_of_another_type(image: Image) -> None:
    key, value = _entries(image, DIRECTORY)[b"hard link"]
    ino, _, name = unpack_entry(value)
    sub = _entries(image, DIRECTORY)[b"sub"]
    _put_entries(image, DIRECTORY, [sub, (key, pack_entry(ino, 12, name))])


@case("entry-reserved")
def name_of_the_root(image: Image) -> None:
    _add(image, DIRECTORY, _entry(image, DIRECTORY, b"root", ROOT_INO, _DIRECTORY_TYPE))


@case("directory-linked-twice", "directory-parent", "link-count")
def directory_with_two_names(image: Image) -> None:
    # the root counts one subdirectory more than its nlink says
    _add(image, ROOT_INO, _entry(image, ROOT_INO, b"again", SUBDIRECTORY, _DIRECTORY_TYPE))


@case("directory-parent")
def wrong_parent(image: Image) -> None:
    image.change_inode(SUBDIRECTORY, parent=BIG)


@case("directory-size")
def wrong_entry_count(image: Image) -> None:
    image.change_inode(DIRECTORY, size=3)


@case("directory-size")
def wrong_entry_count_in_a_tree(image: Image) -> None:
    image.change_inode(BIG, size=59)


@case("directory-unreachable", "link-count")
def directory_without_a_name(image: Image) -> None:
    _put_entries(image, DIRECTORY, [_entries(image, DIRECTORY)[b"hard link"]])


@case("directory-unreachable", "directory-parent", "link-count")
def directories_in_a_cycle(image: Image) -> None:
    entries = _entries(image, ROOT_INO)
    _put_entries(image, ROOT_INO, [entries[b"big"], entries[b"files"]])
    _add(image, SUBDIRECTORY, _entry(image, SUBDIRECTORY, b"dir", DIRECTORY, _DIRECTORY_TYPE), nlink=3)


@case("directory-removed", "link-count")
def removed_directory_with_entries(image: Image) -> None:
    entries = (_entry(image, ORPHAN_DIRECTORY, b"left", FIFO, 1),)
    image.change_inode(ORPHAN_DIRECTORY, form=FORM_ENTRIES, entries=entries, size=1)


@case("link-count")
def wrong_link_count(image: Image) -> None:
    image.change_inode(EXTENTS, nlink=3)


@case("link-count")
def wrong_directory_link_count(image: Image) -> None:
    image.change_inode(DIRECTORY, nlink=2)


@case("link-count", "orphan-lost")
def named_without_links(image: Image) -> None:
    image.change_inode(FIFO, nlink=0)


@case("link-count")
def named_orphan(image: Image) -> None:
    _add(image, DIRECTORY, _entry(image, DIRECTORY, b"back", ORPHAN, _FILE_TYPE))


@case("link-count", "directory-parent")
def named_removed_directory(image: Image) -> None:
    _add(image, DIRECTORY, _entry(image, DIRECTORY, b"back", ORPHAN_DIRECTORY, _DIRECTORY_TYPE))


@case("inode-unreachable", "directory-size")
def file_without_a_name(image: Image) -> None:
    def forget(node: DirectoryNode) -> None:
        node.delete(next(i for i, value in enumerate(node.values) if value[9:] == b"small"))

    image.change_block(image.inode(FILES).root, DirectoryNode, forget)


@case("entry-type", "directory-unreachable", "link-count")
def directory_turned_into_a_file(image: Image) -> None:
    # what is below it cannot be reached any more
    image.change_inode(DIRECTORY, mode=stat.S_IFREG | 0o755, form=0, nlink=1, size=0, flags=0)
