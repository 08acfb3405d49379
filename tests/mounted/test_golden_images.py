"""Images of released formats, mounted: what the kernel is told of them is what the version that wrote them had."""

from __future__ import annotations

import json
import lzma
import os
import stat
from pathlib import Path
from typing import Any, Final

import pytest

from tests.golden.listing import END_BYTES, READ_BYTES_MAX, Listing, bytes_shown, text_shown
from tests.mounted.conftest import MakeScratch
from tests.mounted.scratch import deferfs

pytestmark = pytest.mark.mounted
IMAGES: Final = Path(__file__).parents[1] / "golden" / "images"
GOLDEN: Final = sorted(str(path.relative_to(IMAGES)).removesuffix(".img.xz") for path in IMAGES.glob("*/*.img.xz"))


def attributes_of(path: bytes) -> Listing:
    """As `tests.golden.listing` has them, as far as system calls tell."""
    found = os.lstat(path)
    shown: Listing = {
        "mode": found.st_mode,
        "uid": found.st_uid,
        "gid": found.st_gid,
        "nlink": found.st_nlink,
        "size": found.st_size,
        "atime": found.st_atime_ns,
        "mtime": found.st_mtime_ns,
        "ctime": found.st_ctime_ns,
        "rdev": found.st_rdev,
    }
    if stat.S_ISLNK(found.st_mode):
        shown["target"] = bytes_shown(os.readlink(path))
        return shown
    shown["xattrs"] = {
        text_shown(os.fsencode(name)): bytes_shown(os.getxattr(path, name)) for name in os.listxattr(path)
    }
    if stat.S_ISREG(found.st_mode):
        with open(path, "rb") as file:
            if found.st_size <= READ_BYTES_MAX:
                shown["content"] = bytes_shown(file.read())
            else:
                shown["begins"] = bytes_shown(file.read(END_BYTES))
                file.seek(found.st_size - END_BYTES)
                shown["ends"] = bytes_shown(file.read())
    return shown


def require_directory(path: bytes, ino: int, stored: Listing) -> None:
    """The directory and all below it are as they are stored."""
    entries: dict[str, int] = {name: number for _, name, number, _ in stored["directories"][str(ino)]}
    found = {text_shown(name): name for name in os.listdir(path)}
    assert found.keys() == entries.keys() - {".", ".."}
    for text, name in found.items():
        below = os.path.join(path, name)
        expected: dict[str, Any] = stored["inodes"][str(entries[text])]
        shown = attributes_of(below)
        if stat.S_ISDIR(shown["mode"]):
            shown["size"] = expected["size"]  # on the disk: entries
            require_directory(below, entries[text], stored)
        assert shown == {key: expected[key] for key in shown}, below


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_image_is_mounted_as_listed(name: str, make_scratch: MakeScratch) -> None:
    scratch = make_scratch(size="16M")
    scratch.image.write_bytes(lzma.decompress((IMAGES / f"{name}.img.xz").read_bytes()))
    mount = scratch.mount("noatime")
    require_directory(os.fsencode(mount), 1, json.loads((IMAGES / f"{name}.json").read_text()))
    (mount / "new").write_bytes(b"by a later version")
    scratch.unmount()
    done = deferfs("fsck", "-n", "--json", scratch.image, code=None)
    problems = {problem["number"] for problem in json.loads(done.stdout)["problems"]}
    assert problems <= {508}, done.stdout
