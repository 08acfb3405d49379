"""An image whose records and entries have right checksums and impossible values, through the mount."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from deferfs.device import FileDevice
from deferfs.ondisk.directory import pack_entry
from deferfs.ondisk.inode import ROOT_INO
from deferfs.ondisk.xattr import pack_xattrs
from tests.mounted.scratch import Scratch, deferfs
from tests.unit.check.image import Image

pytestmark = pytest.mark.mounted

NAMES = ("bad mode", "bad size", "bad blocks", "times", "owner", "device", "xattrs", "whole 1", "whole 2", "whole 3")
UNUSABLE = {"bad mode": errno.EUCLEAN, "bad size": errno.EUCLEAN, "bad blocks": errno.EUCLEAN, "dead": errno.ESTALE}


def spoil(path: Path, inodes: dict[str, int]) -> None:
    """The root directory is small enough to have its entries in its record. The bad ones come first."""
    device = FileDevice.open(str(path), writable=True)
    image = Image(device)  # type: ignore[arg-type]
    image.change_inode(inodes["bad mode"], mode=0o170644)
    image.change_inode(inodes["bad size"], size=(1 << 64) - 1)
    image.change_inode(inodes["bad blocks"], blocks=(1 << 64) - 1)
    image.change_inode(inodes["times"], atime=-(1 << 63), mtime=-1, ctime=(1 << 63) - 1)
    image.change_inode(inodes["owner"], uid=(1 << 32) - 1, gid=(1 << 32) - 1, nlink=(1 << 32) - 1)
    image.change_inode(inodes["device"], rdev=1 << 40 | 0x105)
    image.change_inode(inodes["xattrs"], xattrs=pack_xattrs({b"user.a": b"1", b"user.b\0\0c": b"2"}))
    root = image.inode(ROOT_INO)
    bad = [(300, pack_entry(4711, 8, b"dead")), (301, pack_entry(inodes["whole 1"], 8, b"a/b"))]
    bad.append((302, pack_entry(inodes["whole 1"], 8, b"")))
    root.set_entries(root.form, tuple(bad) + root.entries)
    image.put_inode(root)
    device.close()


def test_one_bad_record_hides_no_other_name(plain: Scratch) -> None:
    mount = plain.mount()
    for name in NAMES[:5] + NAMES[6:]:
        (mount / name).touch()
    os.mknod(mount / "device", stat.S_IFCHR | 0o600, os.makedev(1, 5))
    inodes = {name: (mount / name).stat().st_ino for name in NAMES}
    plain.unmount()
    spoil(plain.image, inodes)
    mount = plain.mount()
    for _ in range(2):
        assert set(os.listdir(mount)) == {*NAMES, "dead"}
        for name, number in UNUSABLE.items():
            with pytest.raises(OSError, match=name) as caught:
                os.stat(mount / name)
            assert caught.value.errno == number
        for name in set(NAMES) - UNUSABLE.keys():
            assert (mount / name).lstat().st_ino == inodes[name]
    types = {entry.name: entry.is_file(follow_symlinks=False) for entry in os.scandir(mount)}
    assert types["dead"]
    assert types["bad size"]
    times = (mount / "times").stat()
    assert (times.st_atime_ns, times.st_mtime_ns, times.st_ctime_ns) == (-(1 << 63), -1, (1 << 63) - 1)
    assert (mount / "device").stat().st_rdev == os.makedev(1, 5)
    assert os.listxattr(mount / "xattrs") == ["user.a"]
    assert plain.statistics().inodes.anomalies.keys() <= {"stale_inode"}
    (mount / "whole 1").write_text("still works")
    plain.unmount()
    found = deferfs("fsck", "-n", plain.image, code=4).stdout
    assert all(f"[{number}]" in found for number in (501, 504, 505, 510, 702, 705, 713, 803))
    deferfs("fsck", "-y", plain.image, code=1)
    deferfs("fsck", "-n", plain.image)
    plain.log.unlink()
    mount = plain.mount()
    assert (mount / "whole 1").read_text() == "still works"
    assert (mount / "device").stat().st_rdev == os.makedev(1, 5)
    plain.unmount_and_check()


def names_until_an_error(directory: Path) -> tuple[list[str], int]:
    """What a program reads that stops at the first error, and the errno, 0 when there was none."""
    names: list[str] = []
    try:
        with os.scandir(directory) as entries:
            names.extend(entry.name for entry in entries)
    except OSError as error:
        return names, error.errno or 0
    return names, 0


def test_an_entry_that_cannot_be_listed_ends_the_listing_behind_all_others(plain: Scratch) -> None:
    """And not in their stead: the error is no part of the reply that has them."""
    mount = plain.mount()
    for name in NAMES:
        (mount / name).touch()
    plain.unmount()
    device = FileDevice.open(str(plain.image), writable=True)
    image = Image(device)  # type: ignore[arg-type]
    root = image.inode(ROOT_INO)
    root.set_entries(root.form, (*root.entries, (1 << 63, pack_entry(ROOT_INO + 20, 8, b"impossible key"))))
    image.put_inode(root)
    device.close()
    mount = plain.mount()
    for _ in range(2):
        listed, error = names_until_an_error(mount)
        assert (sorted(listed), error) == (sorted(NAMES), errno.EUCLEAN)
    plain.unmount()
    deferfs("fsck", "-y", plain.image, code=1)
