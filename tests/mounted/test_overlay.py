"""overlayfs with its layers on deferfs: its dentries hold our inodes, and reclaiming them drops the last references."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from deferfs.measure.host.cgroup import MemoryCgroup, find_hierarchy
from tests.examples import night
from tests.mounted.expect import fails_with
from tests.mounted.polling import wait_until
from tests.mounted.scratch import Scratch, run

pytestmark = [pytest.mark.mounted, pytest.mark.each_policy]

FILES = 300
CGROUP_BYTES = 24 << 20
ATTEMPTS_MAX = 20
"""Attempts: another process on the machine may drop the kernel's caches meanwhile."""
PROGRAM = Path(__file__).parent / "programs" / "dentries.py"


@dataclass
class Layers:
    """A deferfs with the directories of an overlay, and where that is mounted."""

    lower: Path
    upper: Path
    work: Path
    merged: Path
    elsewhere: Path
    """A directory on another filesystem, for a layer that is not on deferfs."""


@pytest.fixture
def layers(scratch: Scratch, tmp_path: Path) -> Iterator[Layers]:
    mount = scratch.mount()
    found = Layers(mount / "lower", mount / "upper", mount / "work", tmp_path / "merged", tmp_path / "elsewhere")
    for directory in (found.lower, found.upper, found.work, found.merged, found.elsewhere):
        directory.mkdir()
    yield found
    while os.path.ismount(found.merged):
        run("umount", "--lazy", found.merged)


@contextlib.contextmanager
def overlaid(layers: Layers, *, lower: Path, upper: bool, options: str = "") -> Iterator[Path]:
    """The overlay, mounted; `upper` on deferfs, or read-only without one."""
    words = [f"lowerdir={lower}" if upper else f"lowerdir={lower}:{layers.merged}"]
    if upper:
        words += [f"upperdir={layers.upper}", f"workdir={layers.work}"]
    run("mount", "-t", "overlay", "overlay", "-o", ",".join([*words, *filter(None, [options])]), layers.merged)
    try:
        yield layers.merged
    finally:
        run("umount", layers.merged)


class Presser:
    """The program in a memory cgroup of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def do(self, command: str) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == f"{command}\n"


@contextlib.contextmanager
def presser(tree: Path, scratch: Path) -> Iterator[Presser]:
    hierarchy = find_hierarchy()
    if hierarchy is None:
        pytest.skip("no memory cgroups here")
    with (
        MemoryCgroup(hierarchy, f"deferfs-test-{os.getpid()}", CGROUP_BYTES) as cgroup,
        subprocess.Popen(
            [sys.executable, PROGRAM, tree, scratch], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process,
    ):
        cgroup.add(process.pid)
        yield Presser(process)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(timeout=60) == 0


def fill(directory: Path) -> None:
    for number in range(FILES):
        (directory / f"file{number}").write_bytes(bytes(20_000))


def orphans(scratch: Scratch) -> int:
    return scratch.statistics().space.orphans


def assert_who_waited(scratch: Scratch, evicted: int) -> None:
    """Inline, the FORGETs and RELEASEs sent by the kernel's reclaim wait; deferred, none does."""
    statistics = scratch.statistics()
    violations = statistics.reclaim_context.violations
    waited = sum(count for name, count in violations.items() if name.startswith(("forget:", "release:")))
    if scratch.evict == "inline":
        assert waited >= evicted
    else:
        assert statistics.reclaim_context.violations_total == 0
        assert statistics.reclaim_context.lock_order_cycles == 0
    assert statistics.inodes.quarantined == 0
    assert statistics.inodes.anomalies == {}


@pytest.mark.parametrize("upper", [False, True], ids=["lower", "lower and upper"])
def test_dentry_reclaim_drops_the_last_reference(layers: Layers, scratch: Scratch, upper: bool) -> None:
    """Files are deleted below the overlay, whose dentries still hold them; a cgroup short of memory reclaims those."""
    scratch.sync()
    before = scratch.space()
    with overlaid(layers, lower=layers.lower, upper=upper) as merged, presser(merged, layers.elsewhere) as program:
        for _ in range(ATTEMPTS_MAX):
            fill(layers.lower)
            scratch.sync()
            program.do("walk")
            for path in layers.lower.iterdir():
                path.unlink()
            if orphans(scratch) == FILES:
                break
        else:
            pytest.fail("the overlay's dentries do not hold what they stand for")

        def dropped() -> bool:
            program.do("press")
            scratch.control("gc=flush")
            return orphans(scratch) == 0

        wait_until(dropped, "the kernel to reclaim the overlay's dentries")
    assert_who_waited(scratch, FILES)
    if upper:
        run("rm", "-r", layers.work / "work")  # what the overlay itself leaves there
        for path in (layers.upper, layers.work):
            for name in os.listxattr(path):
                os.removexattr(path, name)
    scratch.drain()
    assert scratch.space() == before
    scratch.unmount_and_check()


@pytest.mark.parametrize("evict", ["deferred", night("inline")])
def test_files_deleted_through_the_overlay_while_open(layers: Layers, scratch: Scratch) -> None:
    """Made in the upper layer, deleted, used on, closed, with a cgroup that reclaims dentries all the time."""
    with overlaid(layers, lower=layers.elsewhere, upper=True) as merged:
        scratch.sync()
        before = scratch.space()
        with presser(merged, layers.elsewhere) as program:
            for _ in range(3):
                fill(merged)
                program.do("walk")
                files = [path.open("r+b") for path in merged.iterdir()]
                assert len(files) == FILES
                for file in files:
                    os.unlink(file.name)
                program.do("press")
                assert orphans(scratch) == FILES
                for number, file in enumerate(files):
                    assert file.read() == bytes(20_000)
                    file.write(b"%d" % number)
                    file.flush()
                    assert os.fstat(file.fileno()).st_nlink == 0
                    file.close()
                scratch.drain()
        scratch.drain()
        assert scratch.space() == before
    assert_who_waited(scratch, 3 * FILES)
    scratch.unmount_and_check()


def test_an_overlay_writes_to_its_upper_layer(layers: Layers, scratch: Scratch) -> None:
    """Copy-up, whiteouts, opaque directories, renames: all of it is on deferfs, and survives a remount."""
    low = layers.elsewhere
    for name in ("changed", "deleted", "moved"):
        (low / name).write_text(name)
    (low / "directory").mkdir()
    (low / "directory" / "below").write_text("below")
    (low / "replaced").mkdir()
    (low / "replaced" / "hidden").write_text("hidden")
    with overlaid(layers, lower=low, upper=True, options="redirect_dir=on") as merged:
        with (merged / "changed").open("a") as file:
            file.write(" too")
        (merged / "deleted").unlink()
        (merged / "moved").rename(merged / "here")
        (merged / "directory").rename(merged / "folder")
        run("rm", "-r", merged / "replaced")
        (merged / "replaced").mkdir()
        with fails_with(errno.ENOTEMPTY):
            (merged / "folder").rmdir()
    for name in ("deleted", "moved", "directory"):
        found = (layers.upper / name).lstat()
        assert stat.S_ISCHR(found.st_mode)
        assert found.st_rdev == 0
    assert os.getxattr(layers.upper / "replaced", "trusted.overlay.opaque") == b"y"
    scratch.remount()
    with overlaid(layers, lower=low, upper=True, options="redirect_dir=on") as merged:
        assert (merged / "changed").read_text() == "changed too"
        assert sorted(os.listdir(merged)) == ["changed", "folder", "here", "replaced"]
        assert os.listdir(merged / "replaced") == []
        assert (merged / "folder" / "below").read_text() == "below"
    scratch.drain()
    scratch.unmount_and_check()
