"""Offsets of directory entries as programs get them: those of 32 bits too, and while entries come and go."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from deferfs.device import FileDevice
from deferfs.ondisk.format import SUPERBLOCK_BYTES, SUPERBLOCK_OFFSETS
from deferfs.ondisk.superblock import newest
from deferfs.store.io import run_job
from deferfs.store.mkfs import make_filesystem, plan_geometry
from tests.examples import night
from tests.mounted import offline
from tests.mounted.scratch import Scratch, deferfs, run

pytestmark = [pytest.mark.mounted, pytest.mark.needs("as", "gcc", "ld")]

SOURCE = Path(__file__).with_name("programs") / "list_offsets.c"
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.fdopendir.restype = LIBC.readdir64.restype = ctypes.c_void_p
LIBC.readdir64.argtypes = LIBC.closedir.argtypes = [ctypes.c_void_p]
_OFFSET, _NAME = 8, 19
"""Of d_off and d_name in struct dirent64."""
OFFSETS_END = 1 << 31
LINKS = 50_000
"""Names that are given to one file: links are made faster than files."""


ON_X86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="needs the C library of another machine")


def compiled(directory: Path, flags: list[str]) -> Path:
    """The program in `programs/list_offsets.c`."""
    program = directory / "list_offsets"
    run("gcc", "-O1", "-Wall", "-Werror", *flags, "-o", program, SOURCE)
    return program


def entries(directory: Path) -> Iterator[tuple[str, int]]:
    """(name, d_off) as readdir(3) gives them, without `.` and `..`."""
    stream = LIBC.fdopendir(os.open(directory, os.O_RDONLY | os.O_DIRECTORY))
    try:
        while found := LIBC.readdir64(stream):
            name = ctypes.string_at(found + _NAME).decode()
            if name not in (".", ".."):
                yield name, ctypes.c_int64.from_address(found + _OFFSET).value
    finally:
        LIBC.closedir(stream)


def fill(directory: Path, prefix: str, count: int) -> set[str]:
    """Give names to files of which there are as few as their link counts allow."""
    names = [f"{prefix}{number}" for number in range(count)]
    for first in range(0, count, LINKS):
        target = directory / names[first]
        target.touch()
        for name in names[first + 1 : first + LINKS]:
            os.link(target, directory / name)
    return set(names)


def made_by_an_earlier_version(image: Path) -> None:
    """A filesystem of the same geometry in its place, without the feature of 31-bit keys."""
    with closing(FileDevice.open(str(image), writable=True)) as device:
        now = newest([device.read(offset, SUPERBLOCK_BYTES) for offset in SUPERBLOCK_OFFSETS])
        geometry = plan_geometry(
            device.size, block_size=now.block_size, uuid=now.uuid, hash_key=now.hash_key, now_ns=now.created_ns
        )
        older = replace(geometry, superblock=replace(geometry.superblock, incompatible=0))
        run_job(device, make_filesystem(older))


@pytest.fixture(scope="module")
def with_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image with a directory of 3,000 files."""
    image = tmp_path_factory.mktemp("offsets") / "image"
    deferfs("mkfs", "-q", image, "--size", "64M")
    with offline.opened(image) as driver:
        parent = offline.make_directory(driver, "directory")
        offline.make_files(driver, (f"file{number}" for number in range(3000)), parent)
    return image


@pytest.mark.parametrize(
    "flags",
    [
        pytest.param([], id="this machine's"),
        pytest.param(["-m32"], id="32 bits", marks=ON_X86),
        pytest.param(["-m32", "-D_FILE_OFFSET_BITS=64"], id="32 bits, large files", marks=ON_X86),
    ],
)
def test_programs_list_a_directory_whole_and_find_their_way_back(
    plain: Scratch, with_directory: Path, tmp_path: Path, flags: list[str]
) -> None:
    program = compiled(tmp_path, flags)
    run("cp", "--sparse=always", with_directory, plain.image)
    directory = plain.mount() / "directory"
    for _ in range(2):
        words = run(program, directory, "40").stdout.split()
        assert words[:2] == ["3002", "entries,"]
        assert 256 <= int(words[4].rstrip(",")) < OFFSETS_END
        assert words[5] == "76"
        directory = plain.remount() / "directory"
    plain.unmount_and_check()


@pytest.mark.parametrize("count", [4_000, night(100_000)])
def test_offsets_of_many_entries(plain: Scratch, count: int) -> None:
    """Below 2^31, and each its entry's own for as long as that is there."""
    directory = plain.mount() / "directory"
    directory.mkdir()
    stays = fill(directory, "stays", count * 3 // 4)
    goes = fill(directory, "goes", count // 4)
    first = dict(entries(directory))
    assert first.keys() == stays | goes
    assert len(set(first.values())) == count
    assert min(first.values()) >= 256
    assert max(first.values()) < OFFSETS_END - 1
    for name in goes:
        (directory / name).unlink()
    comes = fill(directory, "comes", count // 10)
    for _ in range(2):
        now = dict(entries(directory))
        assert now.keys() == stays | comes
        assert all(now[name] == first[name] for name in stays)
        directory = plain.remount() / "directory"
    plain.unmount_and_check()


@pytest.mark.parametrize("count", [2_000, night(20_000)])
def test_each_entry_that_stays_is_read_once_while_others_come_and_go(plain: Scratch, count: int) -> None:
    directory = plain.mount() / "directory"
    directory.mkdir()
    stays = fill(directory, "stays", count)
    goes = sorted(fill(directory, "goes", count))
    target = directory / "stays0"
    seen = []
    for count, (name, _) in enumerate(entries(directory)):
        seen.append(name)
        if count % 2 == 0 and goes:
            (directory / goes.pop()).unlink()
            os.link(target, directory / f"comes{count}")
    assert sorted(name for name in seen if name in stays) == sorted(stays)
    assert len(seen) == len(set(seen))
    plain.unmount_and_check()


@ON_X86
def test_an_older_image_gets_small_offsets_on_request(plain: Scratch, tmp_path: Path) -> None:
    program = compiled(tmp_path, ["-m32"])
    made_by_an_earlier_version(plain.image)
    directory = plain.mount() / "directory"
    directory.mkdir()
    names = fill(directory, "file", 2500)
    (directory / "below").mkdir()
    (directory / "below" / "file").touch()
    before = dict(entries(directory))
    assert max(before.values()) >= OFFSETS_END
    assert "Value too large" in run(program, directory, "40", code=1).stderr
    directory = plain.remount() / "directory"
    assert dict(entries(directory)) == before
    plain.unmount()
    assert plain.check()["wide_directories"] == 3
    done = deferfs("fsck", "-y", "-D", plain.image, code=1)
    assert "3 directories have readdir offsets of 31 bits now" in done.stdout
    assert plain.check()["wide_directories"] == 0
    deferfs("fsck", "-y", "-D", plain.image)
    directory = plain.mount() / "directory"
    after = dict(entries(directory))
    assert after.keys() == names | {"below"}
    assert max(after.values()) < OFFSETS_END
    assert os.listdir(directory / "below") == ["file"]
    assert run(program, directory, "40").stdout.startswith("2503 entries, ")
    plain.unmount_and_check()
