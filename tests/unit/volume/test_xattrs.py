from __future__ import annotations

import errno
import random

import pytest

from deferfs.limits import XATTR_VALUE_BYTES_MAX
from deferfs.volume import acl, attributes, xattrs
from deferfs.volume.driver import Driver
from tests.unit.volumes import (
    DIRECTORY,
    assert_sound,
    fails_with,
    free_blocks,
    fresh_driver,
    make,
    make_file,
    names,
    record,
    reopened,
    unlink,
)

CREATE, REPLACE = xattrs.XATTR_CREATE, xattrs.XATTR_REPLACE


LIST = acl.encode(
    [acl.Entry(1, 7, 0xFFFFFFFF), acl.Entry(2, 6, 1001), acl.Entry(4, 0, 0xFFFFFFFF), acl.Entry(16, 6, 0xFFFFFFFF),
     acl.Entry(32, 0, 0xFFFFFFFF)]
)  # fmt: skip
"""Rights for one named user, which the permission bits 0760 go with."""


@pytest.fixture
def driver() -> Driver:
    return fresh_driver()


def set_(driver: Driver, ino: int, name: bytes, value: bytes, flags: int = 0) -> None:
    driver.run(xattrs.setxattr, driver.volume, ino, name, value, flags)


def get(driver: Driver, ino: int, name: bytes) -> bytes:
    return driver.run(xattrs.getxattr, driver.volume, ino, name)


def every(driver: Driver, ino: int) -> dict[bytes, bytes]:
    return {name: get(driver, ino, name) for name in driver.run(xattrs.listxattr, driver.volume, ino)}


@pytest.mark.parametrize("size", [0, 1, 300, 1000, 5000, 30_000])
def test_values_of_every_size(driver: Driver, size: int) -> None:
    ino = make_file(driver, b"file", b"contents")
    value = random.Random(size).randbytes(size)
    before = record(driver, ino).ctime
    set_(driver, ino, b"user.a", value)
    assert get(driver, ino, b"user.a") == value
    assert record(driver, ino).ctime > before
    assert driver.read(ino, 0, 99) == b"contents"
    driver.commit()
    again = reopened(driver)
    assert every(again, ino) == {b"user.a": value}
    assert_sound(again)


@pytest.mark.parametrize("name", [b"user.a", b"trusted.a", b"security.selinux", b"user." + b"x" * 250])
def test_names_that_can_be(driver: Driver, name: bytes) -> None:
    ino = make(driver, b"dir", DIRECTORY)
    set_(driver, ino, name, b"v")
    assert every(driver, ino) == {name: b"v"}


@pytest.mark.parametrize(
    ("name", "code"),
    [
        (b"a", errno.EOPNOTSUPP),
        (b"system.other", errno.EOPNOTSUPP),
        (b"system.posix_acl_access.x", errno.EOPNOTSUPP),
        (b"user.", errno.EINVAL),
        (b"user." + b"x" * 251, errno.ERANGE),
    ],
)
def test_names_that_cannot_be(driver: Driver, name: bytes, code: int) -> None:
    ino = make(driver, b"file")
    with fails_with(code):
        set_(driver, ino, name, b"v")
    with fails_with(code):
        driver.run(xattrs.removexattr, driver.volume, ino, name)
    with fails_with(code):
        get(driver, ino, name)


@pytest.mark.parametrize(
    ("exists", "flags", "code"),
    [
        (False, 0, 0),
        (True, 0, 0),
        (False, CREATE, 0),
        (True, CREATE, errno.EEXIST),
        (False, REPLACE, errno.ENODATA),
        (True, REPLACE, 0),
    ],
)
def test_flags(driver: Driver, exists: bool, flags: int, code: int) -> None:
    ino = make(driver, b"file")
    if exists:
        set_(driver, ino, b"user.a", b"old")
    if code:
        with fails_with(code):
            set_(driver, ino, b"user.a", b"new", flags)
        assert every(driver, ino) == ({b"user.a": b"old"} if exists else {})
    else:
        set_(driver, ino, b"user.a", b"new", flags)
        assert every(driver, ino) == {b"user.a": b"new"}


def test_values_that_are_too_large(driver: Driver) -> None:
    ino = make(driver, b"file")
    with fails_with(errno.E2BIG):
        set_(driver, ino, b"user.a", bytes(XATTR_VALUE_BYTES_MAX + 1))
    with fails_with(errno.ENOSPC):
        set_(driver, ino, b"user.a", bytes(XATTR_VALUE_BYTES_MAX))
    assert every(driver, ino) == {}


def test_the_largest_value_where_the_log_is_large_enough() -> None:
    driver = fresh_driver(block_size=4096)
    ino = make(driver, b"file")
    set_(driver, ino, b"user.a", b"x" * XATTR_VALUE_BYTES_MAX)
    set_(driver, ino, b"user.b", b"y" * XATTR_VALUE_BYTES_MAX)
    assert {name: len(value) for name, value in every(driver, ino).items()} == {b"user.a": 65536, b"user.b": 65536}
    assert_sound(driver)


def test_removing(driver: Driver) -> None:
    ino = make(driver, b"file")
    free = free_blocks(driver)
    for name in (b"user.a", b"user.b"):
        set_(driver, ino, name, bytes(2000))
    driver.run(xattrs.removexattr, driver.volume, ino, b"user.a")
    assert list(every(driver, ino)) == [b"user.b"]
    with fails_with(errno.ENODATA):
        driver.run(xattrs.removexattr, driver.volume, ino, b"user.a")
    driver.run(xattrs.removexattr, driver.volume, ino, b"user.b")
    assert every(driver, ino) == {}
    driver.commit()
    assert free_blocks(driver) == free
    assert_sound(driver)


def test_xattr_blocks_go_with_the_inode(driver: Driver) -> None:
    free = free_blocks(driver)
    ino = make_file(driver, b"file", b"x" * 2000)
    set_(driver, ino, b"user.a", bytes(9000))
    unlink(driver, b"file")
    driver.collect()
    assert_sound(driver)
    assert free_blocks(driver) == free


@pytest.mark.parametrize("size", range(360, 384, 2))
def test_a_full_record_does_not_stop_a_file_or_a_directory_from_growing(driver: Driver, size: int) -> None:
    file, directory = make(driver, b"file"), make(driver, b"dir", DIRECTORY)
    for ino in (file, directory):
        set_(driver, ino, b"user.a", bytes(size - 11))
    for number in range(30):
        driver.write(file, number * 4096, b"x")
        make(driver, b"%d" % number, parent=directory)
    assert len(names(driver, directory)) == 30
    assert_sound(driver)


def test_a_full_disk_lets_attributes_go_and_modes_change(driver: Driver) -> None:
    """What is kept is written anew first, which takes blocks for a moment."""
    ino = make_file(driver, b"file", b"contents")
    set_(driver, ino, b"user.kept", bytes(3000))
    set_(driver, ino, b"user.gone", bytes(5000))
    set_(driver, ino, acl.ACCESS, LIST)
    ballast = make_file(driver, b"ballast", b"")
    with fails_with(errno.ENOSPC):
        for number in range(driver.device.size // 1024):
            driver.write(ballast, number * 1024, bytes(1024))
    with fails_with(errno.ENOSPC):
        set_(driver, ino, b"user.more", bytes(3000))
    driver.run(attributes.setattr, driver.volume, ino, mode=0o640)
    assert acl.permission_bits(acl.decode(get(driver, ino, acl.ACCESS))) == 0o640
    driver.run(xattrs.removexattr, driver.volume, ino, b"user.gone")
    assert set(every(driver, ino)) == {b"user.kept", acl.ACCESS}
    assert_sound(driver)
