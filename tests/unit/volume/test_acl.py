"""Access control lists: their format, their rules, and how they keep step with the mode."""

from __future__ import annotations

import errno
import stat
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deferfs.volume import acl, attributes, namespace, xattrs
from deferfs.volume.acl import Entry
from deferfs.volume.driver import Driver
from deferfs.volume.new_inode import Credentials, NewInode
from tests.unit.volumes import DIRECTORY, FILE, ROOT, assert_sound, fails_with, fresh_driver, make, record, reopened

NO_ID = 0xFFFFFFFF
USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER = 1, 2, 4, 8, 16, 32
TAGS = {"u": USER_OBJ, "U": USER, "g": GROUP_OBJ, "G": GROUP, "m": MASK, "o": OTHER}

LISTS = st.builds(
    lambda user, users, group, groups, mask, other: [
        Entry(USER_OBJ, user, NO_ID),
        *(Entry(USER, bits, who) for who, bits in sorted(users.items())),
        Entry(GROUP_OBJ, group, NO_ID),
        *(Entry(GROUP, bits, who) for who, bits in sorted(groups.items())),
        *([Entry(MASK, mask if mask is not None else 5, NO_ID)] if users or groups or mask is not None else []),
        Entry(OTHER, other, NO_ID),
    ],
    st.integers(0, 7),
    st.dictionaries(st.integers(0, NO_ID - 1), st.integers(0, 7), max_size=4),
    st.integers(0, 7),
    st.dictionaries(st.integers(0, NO_ID - 1), st.integers(0, 7), max_size=4),
    st.none() | st.integers(0, 7),
    st.integers(0, 7),
)


def entries(text: str) -> list[Entry]:
    """`u7 U1001:6 g5 m7 o0`."""
    found = []
    for word in text.split():
        who, _, bits = word[1:].rpartition(":")
        found.append(Entry(TAGS[word[0]], int(bits), int(who) if who else NO_ID))
    return found


@given(LISTS)
def test_the_format_and_back(entries: list[Entry]) -> None:
    assert acl.decode(acl.encode(entries)) == entries


@given(LISTS, st.integers(0, 0o777))
def test_mode_and_list_keep_step(entries: list[Entry], mode: int) -> None:
    assert acl.permission_bits(acl.with_mode(entries, mode)) == mode
    assert acl.with_mode(entries, acl.permission_bits(entries)) == entries


@given(LISTS, st.integers(0, 0o7777))
def test_inherited_bits_are_allowed_by_both(entries: list[Entry], mode: int) -> None:
    got, made = acl.inherited(entries, stat.S_IFREG | mode)
    assert got & ~mode & 0o777 == 0
    assert got & ~0o777 == stat.S_IFREG | mode & ~0o777
    assert acl.permission_bits(made) == got & 0o777
    assert all(new.permissions & ~old.permissions == 0 for old, new in zip(entries, made, strict=True))


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"junk",
        struct.pack("<I", 1) + acl.encode(entries("u7 g5 o0"))[4:],
        acl.encode(entries("u7 g5 o0"))[:-1],
        acl.encode([]),
        acl.encode(entries("u7 g5")),
        acl.encode(entries("u7 o5")),
        acl.encode(entries("g7 o5")),
        acl.encode(entries("u7 u7 g5 o0")),
        acl.encode(entries("g5 u7 o0")),
        acl.encode(entries("u7 U1:7 g5 o0")),
        acl.encode(entries("u7 g5 G1:7 o0")),
        acl.encode(entries("u7 U2:7 U1:7 g5 m7 o0")),
        acl.encode(entries("u7 U1:7 U1:6 g5 m7 o0")),
        acl.encode([Entry(USER_OBJ, 8, NO_ID), *entries("g5 o0")]),
        acl.encode([*entries("u7 g5 o0"), Entry(64, 0, NO_ID)]),
    ],
)
def test_an_invalid_list_is_refused(value: bytes) -> None:
    with fails_with(errno.EINVAL):
        acl.decode(value)
    driver = fresh_driver()
    ino = make(driver, b"file")
    with fails_with(errno.EINVAL):
        set_(driver, ino, acl.ACCESS, value)
    assert record(driver, ino).mode == FILE


def set_(driver: Driver, ino: int, name: bytes, value: bytes, groups: frozenset[int] | None = None) -> None:
    vouched = None if groups is None else groups.__contains__
    driver.run(xattrs.setxattr, driver.volume, ino, name, value, 0, vouched)


def every(driver: Driver, ino: int) -> dict[bytes, list[Entry]]:
    names = driver.run(xattrs.listxattr, driver.volume, ino)
    return {name: acl.decode(driver.run(xattrs.getxattr, driver.volume, ino, name)) for name in names}


def test_an_access_list_sets_the_mode_and_chmod_sets_the_list() -> None:
    driver = fresh_driver()
    ino = make(driver, b"file", stat.S_IFREG | 0o4600)
    set_(driver, ino, acl.ACCESS, acl.encode(entries("u6 U1001:7 g4 m5 o1")))
    assert record(driver, ino).mode == stat.S_IFREG | 0o4651
    driver.run(attributes.setattr, driver.volume, ino, mode=0o740)
    assert every(driver, ino) == {acl.ACCESS: entries("u7 U1001:7 g4 m4 o0")}
    driver.commit()
    driver = reopened(driver)
    assert every(driver, ino) == {acl.ACCESS: entries("u7 U1001:7 g4 m4 o0")}
    assert record(driver, ino).mode == stat.S_IFREG | 0o740
    assert_sound(driver)


def test_a_list_that_says_no_more_than_the_mode_is_not_kept() -> None:
    driver = fresh_driver()
    ino = make(driver, b"file")
    set_(driver, ino, acl.ACCESS, acl.encode(entries("u6 U1001:7 g4 m5 o1")))
    set_(driver, ino, acl.ACCESS, acl.encode(entries("u7 g1 o0")))
    assert every(driver, ino) == {}
    assert record(driver, ino).mode == stat.S_IFREG | 0o710


def test_set_group_id_goes_when_the_caller_is_not_in_the_group() -> None:
    driver = fresh_driver()
    ino = make(driver, b"file", stat.S_IFREG | 0o2755)
    value = acl.encode(entries("u7 U1001:7 g5 m7 o1"))
    set_(driver, ino, acl.ACCESS, value, frozenset((0, 7)))
    assert record(driver, ino).mode & stat.S_ISGID
    set_(driver, ino, acl.ACCESS, value, frozenset((7,)))
    assert not record(driver, ino).mode & stat.S_ISGID


def test_only_directories_have_default_lists_and_links_have_none() -> None:
    driver = fresh_driver()
    value = acl.encode(entries("u7 g5 o0"))
    with fails_with(errno.EACCES):
        set_(driver, make(driver, b"file"), acl.DEFAULT, value)
    link = driver.run(namespace.symlink, driver.volume, ROOT, b"link", b"target").ino
    with fails_with(errno.EOPNOTSUPP):
        set_(driver, link, acl.ACCESS, value)


@pytest.mark.parametrize("block_size", [1024, 4096])
def test_a_new_inode_in_a_directory_with_a_default_list(block_size: int) -> None:
    driver = fresh_driver(block_size=block_size)
    top = make(driver, b"top", DIRECTORY)
    default = entries("u7 " + " ".join(f"U{who}:7" for who in range(1000, 1040)) + " g5 m7 o1")
    set_(driver, top, acl.DEFAULT, acl.encode(default))
    umask = 0o077

    def create(parent: int, name: bytes, mode: int) -> int:
        return driver.run(namespace.create, driver.volume, parent, name, NewInode(mode, Credentials(umask=umask))).ino

    inner = create(top, b"inner", stat.S_IFDIR | 0o775)
    file = create(inner, b"file", stat.S_IFREG | 0o640)
    link = driver.run(namespace.symlink, driver.volume, top, b"link", b"target").ino
    driver.commit()
    driver = reopened(driver)
    assert every(driver, inner) == {acl.ACCESS: default, acl.DEFAULT: default}
    assert record(driver, inner).mode == stat.S_IFDIR | 0o771
    assert every(driver, file) == {acl.ACCESS: acl.with_mode(default, 0o640)}
    assert record(driver, file).mode == stat.S_IFREG | 0o640
    assert every(driver, link) == {}
    assert_sound(driver)


def test_the_umask_counts_where_there_is_no_default_list() -> None:
    driver = fresh_driver()
    masked = NewInode(stat.S_IFREG | 0o666, Credentials(umask=0o027))
    made = driver.run(namespace.create, driver.volume, ROOT, b"file", masked)
    assert made.mode == stat.S_IFREG | 0o640


def test_removing_a_list_that_is_not_there_is_no_error() -> None:
    driver = fresh_driver()
    ino = make(driver, b"file")
    driver.run(xattrs.removexattr, driver.volume, ino, acl.ACCESS)
    assert every(driver, ino) == {}
