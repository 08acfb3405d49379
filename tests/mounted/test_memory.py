"""How much the daemon keeps resident, and that it lives in a small memory cgroup."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from deferfs.limits import INODE_COST_BYTES
from deferfs.measure.host.cgroup import MemoryCgroup, find_hierarchy
from tests.examples import night
from tests.mounted import offline
from tests.mounted.conftest import MakeScratch
from tests.mounted.scratch import Scratch, deferfs

pytestmark = pytest.mark.mounted

CGROUP_BYTES: Final = 96 << 20
WORK: Final = textwrap.dedent("""
    import os, sys
    root, cgroup = sys.argv[1:]
    if cgroup:
        with open(cgroup, "w") as file:
            file.write(str(os.getpid()))
    piece = os.urandom(1 << 20)
    for turn in range(2):
        for number in range(3):
            with open(f"{root}/large-{number}", "wb", buffering=0) as file:
                for _ in range(50):
                    file.write(piece)
        for number in range(1500):
            with open(f"{root}/small-{number}", "wb") as file:
                file.write(b"x" * 3000)
        for name in os.listdir(root):
            os.stat(f"{root}/{name}")
        for number in range(1500):
            os.unlink(f"{root}/small-{number}")
""")
"""Large files written and rewritten, many small ones made, looked at and removed; from inside of a cgroup if there is
one."""


def work(root: Path, cgroup: str = "") -> None:
    subprocess.run([sys.executable, "-c", WORK, str(root), cgroup], check=True)


def test_the_resident_size_stays_below_the_promise(scratch: Scratch) -> None:
    scratch.afresh = True
    root = scratch.mount("memory=8M")
    work(root)
    memory = scratch.statistics().memory
    assert 0 < memory.resident_bytes <= memory.resident_highest_bytes <= memory.promised_bytes
    assert memory.promised_bytes < 80 << 20
    scratch.unmount_and_check()


def test_the_kernel_forgets_what_is_neither_open_nor_opened_again_when_its_inodes_fill_the_budget(
    plain: Scratch,
) -> None:
    count = (5 << 19) // INODE_COST_BYTES
    with offline.opened(plain.image) as driver:
        offline.make_files(driver, (f"file{number}" for number in range(count)))
    root = plain.mount("memory=2M")
    used = [root / f"used{number}" for number in range(20)]
    for path in used:
        path.write_bytes(b"x" * 4096)
    with (root / "open").open("w+b", buffering=0) as file:
        file.write(b"content")
        with os.scandir(root) as entries:
            for number, entry in enumerate(entries):
                entry.stat(follow_symlinks=False)  # or the kernel asks for no more attributes with the next names
                if number % 400 == 0:
                    assert {path.read_bytes() for path in used} == {b"x" * 4096}
        assert plain.requests("read") <= len(used), "what is in use is forgotten, with its data"
        memory = plain.statistics().memory
        assert memory.inode_bytes < memory.budget_bytes
        assert os.stat(file.fileno()).st_ino == (root / "open").stat().st_ino
        assert os.pread(file.fileno(), 100, 0) == b"content"
    assert len(os.listdir(root)) == count + len(used) + 1
    assert not plain.statistics().inodes.anomalies
    plain.unmount_and_check()


def test_an_empty_image_of_two_terabytes_takes_no_more_memory(make_scratch: MakeScratch) -> None:
    large = make_scratch(size="2T", afresh=True)
    root = large.mount("memory=8M")
    (root / "file").write_bytes(b"x" * 100_000)
    memory = large.statistics().memory
    assert memory.used_bytes < memory.budget_bytes
    assert memory.resident_highest_bytes <= memory.promised_bytes
    large.unmount()


@contextmanager
def mounted_inside(scratch: Scratch, limit_bytes: int) -> Iterator[tuple[MemoryCgroup, Path, str]]:
    """The scratch, mounted by a command in a memory cgroup that the daemon stays in: (the cgroup, its list of members,
    what the command said)."""
    hierarchy = find_hierarchy()
    if hierarchy is None:
        pytest.skip("no memory cgroups here")
    name = f"deferfs-test-{os.getpid()}"
    with MemoryCgroup(hierarchy, name, limit_bytes) as cgroup:
        members = hierarchy.memory / name / "cgroup.procs"
        starter = "import os, sys; open(sys.argv[1], 'w').write(str(os.getpid())); os.execvp(sys.argv[2], sys.argv[2:])"
        options = f"evict={scratch.evict},log={scratch.log}"
        paths = (str(scratch.image), str(scratch.mountpoint))
        command = [sys.executable, "-m", "deferfs", "mount", *paths, "-o", options]
        done = subprocess.run(
            [sys.executable, "-c", starter, members, *command], check=True, cwd="/", stderr=subprocess.PIPE, text=True
        )
        try:
            assert str(scratch.pid) in members.read_text().split()
            yield cgroup, members, done.stderr
            assert cgroup.read().oom_kills == 0
        finally:
            deferfs("umount", scratch.mountpoint)
        assert cgroup.read().oom_kills == 0
    scratch.check()


@pytest.mark.parametrize(
    ("evict", "inside"),
    [("deferred", True), night("inline", False), night("deferred", False), night("inline", True)],
    ids=["deferred-inside", "inline-outside", "deferred-outside", "inline-inside"],
)
def test_a_daemon_in_a_small_cgroup_is_not_killed(scratch: Scratch, inside: bool) -> None:
    """Mounted in there, it takes a budget that leaves room for itself."""
    with mounted_inside(scratch, CGROUP_BYTES) as (_, members, said):
        assert said == ""
        assert scratch.statistics().memory.budget_bytes < CGROUP_BYTES // 2
        work(scratch.mountpoint, str(members) if inside else "")


def test_the_command_warns_of_a_cgroup_that_is_too_small(plain: Scratch) -> None:
    with mounted_inside(plain, 60 << 20) as (_, _, said):
        assert said == "deferfs: the memory cgroup is limited to 60 MiB: the daemon may need 66 MiB\n"
