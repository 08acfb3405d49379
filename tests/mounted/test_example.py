"""The example of docs/reclaim-library.md: mounted for real under both policies, and its FORGET driven by hand."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pyfuse3
import pytest

from deferfs.reclaim import State

EXAMPLE = Path(__file__).parents[2] / "docs" / "example_filesystem.py"
CONTENT = bytes(range(256)) * 20_000


class Mounted:
    """The example as a program of its own; `backing` is where its temporary directory lies."""

    def __init__(self, root: Path, evict: str) -> None:
        self.point, self.backing = root / "mountpoint", root / "backing"
        self.point.mkdir()
        self.backing.mkdir()
        self.daemon = subprocess.Popen(
            [sys.executable, EXAMPLE, self.point, evict],
            env={**os.environ, "TMPDIR": str(self.backing)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        while not self.point.is_mount():
            assert self.daemon.poll() is None, self.daemon.communicate()[0]

    def contents(self) -> list[Path]:
        """What has not been shredded yet."""
        return list(self.backing.glob("*/*"))

    def wait_for_contents(self, count: int) -> None:
        """Under the test's time limit."""
        while len(self.contents()) != count:
            assert self.daemon.poll() is None

    def end(self) -> str:
        """Unmount; what the program said."""
        subprocess.run(["umount", self.point], check=True)
        said = self.daemon.communicate()[0]
        assert self.daemon.returncode == 0, said
        return said


@pytest.fixture
def mounted(tmp_path: Path, evict: str) -> Iterator[Mounted]:
    example = Mounted(tmp_path, evict)
    yield example
    if example.daemon.poll() is None:
        subprocess.run(["umount", "--lazy", example.point], check=False)
        example.daemon.communicate()


@pytest.mark.machine
@pytest.mark.each_policy
@pytest.mark.mounted
def test_files_live_until_no_name_and_no_handle_reaches_them(mounted: Mounted, evict: str) -> None:
    for name in ("kept", "deleted", "deleted while open"):
        (mounted.point / name).write_bytes(CONTENT)
    assert sorted(os.listdir(mounted.point)) == ["deleted", "deleted while open", "kept"]
    Path("/proc/sys/vm/drop_caches").write_text("2")
    assert (mounted.point / "kept").read_bytes() == CONTENT
    (mounted.point / "deleted").unlink()
    mounted.wait_for_contents(2)
    with (mounted.point / "deleted while open").open("r+b", buffering=0) as file:
        (mounted.point / "deleted while open").unlink()
        Path("/proc/sys/vm/drop_caches").write_text("2")
        file.write(b"still")
        assert os.pread(file.fileno(), 10, 0) == b"still" + CONTENT[5:10]
        assert len(mounted.contents()) == 2
    mounted.wait_for_contents(1)
    assert (mounted.point / "kept").read_bytes() == CONTENT
    said = mounted.end()
    assert "inactivated 3, left 0" in said
    assert ("waits in reclaim context {}" in said) == (evict == "deferred"), said
    assert list(mounted.backing.iterdir()) == []


def sends(handler: Coroutine[Any, Any, None]) -> bool:
    """Whether the handler completes in one step, without waiting for anything."""
    try:
        handler.send(None)
    except StopIteration:
        return True
    handler.close()
    return False


def orphan(tmp_path: Path, evict: str) -> Any:
    """The example, not mounted, with a deleted file 2 that the kernel still knows."""
    filesystem = runpy.run_path(str(EXAMPLE))["ShreddingFilesystem"](tmp_path, evict)
    (tmp_path / "2").write_bytes(b"secret")
    filesystem.names[b"name"] = 2
    filesystem.told(2)
    assert filesystem.orphan(b"name") is None
    return filesystem


def test_deferred_forget_completes_in_one_step(tmp_path: Path) -> None:
    filesystem = orphan(tmp_path, "deferred")
    filesystem.checker.strict = True
    assert sends(filesystem.forget([(2, 1), (pyfuse3.ROOT_INODE, 1)]))
    assert filesystem.cache.table[2].state is State.QUEUED
    assert (tmp_path / "2").read_bytes() == b"secret"


async def test_inline_forget_waits_for_the_shredding(tmp_path: Path) -> None:
    filesystem = orphan(tmp_path, "inline")
    await filesystem.forget([(2, 1)])
    assert not (tmp_path / "2").exists()
    assert filesystem.checker.violations == {"forget:io": 1}


@pytest.mark.parametrize("evict", ["deferred", "inline"])
async def test_a_failed_shredding_is_tried_again(tmp_path: Path, evict: str) -> None:
    filesystem = orphan(tmp_path, evict)
    (tmp_path / "2").rename(tmp_path / "elsewhere")
    await filesystem.forget([(2, 1)])
    await filesystem.clean_batch()
    assert filesystem.gc.statistics().delayed == 1
    (tmp_path / "elsewhere").rename(tmp_path / "2")
    await filesystem.drain()
    assert not (tmp_path / "2").exists()
    assert filesystem.cache.table == {}


@pytest.mark.parametrize("arguments", [[], ["/nowhere"], ["/", "sometimes"]])
def test_wrong_arguments_are_reported_in_one_line(arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, EXAMPLE, *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n"), done.stdout) == (2, 1, "")


def test_a_failed_mount_prints_no_traceback(tmp_path: Path) -> None:
    """Without CAP_SYS_ADMIN no mount succeeds. libfuse says why, the program where."""
    done = subprocess.run(
        ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin", sys.executable, EXAMPLE, tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"{tmp_path}: ")
    assert "Traceback" not in done.stderr
