"""A directory with very many entries, directories very deep, a file with very many names: make, list, walk, delete."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path

import pytest

from tests.mounted.expect import fails_with
from tests.mounted.scratch import Scratch, run

pytestmark = pytest.mark.mounted

LONG = pytest.mark.long


@pytest.mark.timeout(6000)
@pytest.mark.parametrize("count", [2_500, pytest.param(1_000_000, marks=LONG)])
def test_one_directory_with_many_entries(plain: Scratch, count: int) -> None:
    plain.end()
    scratch = Scratch(plain.directory / "large", size="4G")
    try:
        mount = scratch.mount()
        fresh = scratch.space()
        many = mount / "many"
        many.mkdir()
        for number in range(count):
            os.mknod(many / str(number), 0o600)
        expected = set(map(str, range(count)))
        assert set(os.listdir(many)) == expected
        scratch.remount()
        with os.scandir(many) as entries:
            names = [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
        assert len(names) == count
        assert set(names) == expected
        chosen = random.Random(1).sample(range(count), 1000)
        for number in chosen:
            assert (many / str(number)).stat().st_size == 0
            (many / str(number)).rename(many / f"renamed{number}")
        assert int(run("bash", "-c", "find . -name 'renamed*' | wc -l", cwd=many, seconds=1000).stdout) == 1000
        run("rm", "-rf", many, seconds=3600)
        scratch.drain()
        assert scratch.space() == fresh
        scratch.unmount_and_check()
    finally:
        scratch.end()


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("depth", [1_500, pytest.param(10_000, marks=LONG)])
def test_directories_very_deep(plain: Scratch, depth: int) -> None:
    """By chdir, far past PATH_MAX; with a remount while they are there."""
    mount = plain.mount()
    fresh = plain.space()
    above = os.open("/", os.O_RDONLY)
    try:
        dig(mount, depth)
        os.fchdir(above)
        plain.remount()
        os.chdir(mount)
        for _ in range(depth):
            os.chdir("deep")
        assert os.listdir(".") == ["bottom"]
        with fails_with(errno.ENAMETOOLONG, errno.ENOENT):
            os.stat("/".join(["deep"] * depth))
        for _ in range(depth):
            os.chdir("..")
        assert os.path.samefile(".", mount)
    finally:
        os.fchdir(above)
        os.close(above)
    assert int(run("bash", "-c", "find . | wc -l", cwd=mount, seconds=600).stdout) == depth + 2
    run("rm", "-rf", mount / "deep", seconds=600)
    plain.drain()
    assert plain.space() == fresh
    plain.unmount_and_check()


def dig(mount: Path, depth: int) -> None:
    os.chdir(mount)
    for _ in range(depth):
        os.mkdir("deep")
        os.chdir("deep")
    Path("bottom").write_text("down here")


def test_a_thousand_hard_links(plain: Scratch) -> None:
    mount = plain.mount()
    fresh = plain.space()
    file = mount / "file"
    file.write_text("content")
    for number in range(1000):
        directory = mount / f"directory{number % 10}"
        directory.mkdir(exist_ok=True)
        os.link(file, directory / str(number))
    plain.remount()
    assert file.stat().st_nlink == 1001
    found = run("find", ".", "-samefile", "file", cwd=mount).stdout.splitlines()
    assert len(found) == 1001
    (mount / "directory3" / "3").write_text("changed")
    assert file.read_text() == "changed"
    run("rm", "-rf", *(mount / f"directory{number}" for number in range(10)))
    assert file.stat().st_nlink == 1
    file.unlink()
    plain.drain()
    assert plain.space() == fresh
    plain.unmount_and_check()
