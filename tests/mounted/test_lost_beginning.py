"""`dd` over the first 68 KiB of an image: every file is there again after `fsck -y`, whatever the image was doing."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from tests.examples import night
from tests.mounted.conftest import MakeScratch
from tests.mounted.scratch import Scratch, deferfs, run

pytestmark = pytest.mark.mounted

SIZES = {"1K": "16M", "2K": "16M", "4K": "16M", "8K": "32M", "16K": "64M", "32K": "256M", "64K": "8G"}
BLOCK_SIZES = [size if size in ("1K", "4K", "64K") else night(size) for size in SIZES]


def fill(root: Path, count: int) -> None:
    for number in range(count):
        place = root / f"directory {number % 7}"
        place.mkdir(exist_ok=True)
        (place / f"file {number}").write_bytes(hashlib.sha256(b"%d" % number).digest() * (number * 13 % 900))
    for number in range(0, count, 5):
        (root / f"directory {number % 7}" / f"file {number}").unlink()


def digests(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file()
    }


def lose_the_beginning(scratch: Scratch) -> None:
    run("dd", "if=/dev/zero", f"of={scratch.image}", "bs=1K", "count=68", "conv=notrunc")
    refused = deferfs("mount", scratch.image, scratch.mountpoint, code=None)
    assert refused.returncode
    assert refused.stderr.count("\n") == 1
    assert "deferfs fsck -y" in refused.stderr


def restore(scratch: Scratch, expected: dict[str, str]) -> None:
    assert "[106]" in deferfs("fsck", "-n", scratch.image, code=4).stdout
    deferfs("fsck", "-y", scratch.image, code=1)
    mount = scratch.mount()
    assert digests(mount) == expected
    fill(mount / "directory 1", 40)
    scratch.unmount_and_check()


@pytest.mark.parametrize("block_size", BLOCK_SIZES)
def test_files_survive_a_lost_beginning_after_a_clean_unmount(make_scratch: MakeScratch, block_size: str) -> None:
    scratch = make_scratch(size=SIZES[block_size], format_options=("-b", block_size))
    mount = scratch.mount()
    fill(mount, 200)
    expected = digests(mount)
    scratch.unmount()
    lose_the_beginning(scratch)
    restore(scratch, expected)


@pytest.mark.parametrize("block_size", BLOCK_SIZES)
def test_synced_files_survive_a_lost_beginning_after_a_kill(make_scratch: MakeScratch, block_size: str) -> None:
    """What was synced is only in the log, in parts; what came after may be there or not."""
    scratch = make_scratch(size=SIZES[block_size], format_options=("-b", block_size))
    mount = scratch.mount()
    fill(mount, 100)
    scratch.sync()
    for path in sorted(mount.rglob("file 1*")):
        path.rename(path.with_name(f"renamed {path.name}"))
    fill(mount / "directory 2", 60)
    scratch.sync()
    expected = digests(mount)
    held = os.open(mount / "directory 2" / "directory 1" / "file 1", os.O_RDONLY)
    try:
        scratch.kill()
    finally:
        os.close(held)
    scratch.detach()
    lose_the_beginning(scratch)
    restore(scratch, expected)
