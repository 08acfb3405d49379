"""Pressure events: real ones of the kernel where it has them, a faked tree of version 2 elsewhere."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deferfs.errors import EnvironmentProblem
from deferfs.measure.host.cgroup import MemoryCgroup, find_hierarchy
from deferfs.mount.host.own_cgroup import own_cgroups
from deferfs.mount.host.pressure import open_sources

REPOSITORY = Path(__file__).parents[4]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Version 2: our cgroup, which has a pressure file."""
    (tmp_path / "cgroup").write_text("0::/user.slice/deferfs.service\n")
    directory = tmp_path / "sys" / "user.slice" / "deferfs.service"
    directory.mkdir(parents=True)
    (directory / "memory.pressure").write_text("")
    return tmp_path


def test_version_2_has_its_own_pressure_file(tree: Path) -> None:
    found = list(own_cgroups(proc=str(tree / "cgroup"), root=str(tree / "sys")))
    assert found == [(2, str(tree / "sys/user.slice/deferfs.service"))]


def test_both_hierarchies_beside_each_other(tmp_path: Path) -> None:
    (tmp_path / "cgroup").write_text("4:memory:/a\n3:cpu:/b\n0::/c\n")
    (tmp_path / "sys" / "unified").mkdir(parents=True)
    found = list(own_cgroups(proc=str(tmp_path / "cgroup"), root=str(tmp_path / "sys")))
    assert found == [(1, str(tmp_path / "sys/memory/a")), (2, str(tmp_path / "sys/unified/c"))]


def test_the_trigger_is_written_to_the_file_of_our_cgroup(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Epoll:
        """epoll(7) refuses plain files."""

        def register(self, fd: int, events: int) -> None:
            assert events == select.EPOLLPRI

        def fileno(self) -> int:
            return 0

        def close(self) -> None: ...

    monkeypatch.setattr(select, "epoll", Epoll)
    (source,) = open_sources(proc=str(tree / "cgroup"), root=str(tree / "sys"), system="/nowhere")
    source.close()
    file = tree / "sys/user.slice/deferfs.service/memory.pressure"
    assert file.read_bytes() == b"some 200000 2000000\0"


def test_without_any_source_there_is_none(tmp_path: Path) -> None:
    assert open_sources(proc=str(tmp_path / "no"), root=str(tmp_path), system=str(tmp_path / "no")) == []


@pytest.mark.skipif(os.geteuid() != 0 or not os.path.exists("/proc/pressure/memory"), reason="needs root and PSI")
def test_the_kernel_takes_the_trigger() -> None:
    sources = open_sources(proc="/dev/null")
    assert [source.name for source in sources] == ["psi:/proc/pressure/memory"]
    assert sources[0].acknowledge() == []
    sources[0].close()


_CHILD = """
import select, sys
from deferfs.mount.host.pressure import open_sources
(source,) = [source for source in open_sources() if source.name.startswith("level:")]
poll = select.poll()
poll.register(source.fd, select.POLLIN)
before = bool(poll.poll(0))
with open(sys.argv[1], "wb") as file:
    for _ in range(96):
        file.write(bytes(1 << 20))
print(before, bool(poll.poll(10_000)), source.acknowledge())
source.close()
"""


@pytest.fixture
def cgroup() -> Iterator[MemoryCgroup]:
    hierarchy = find_hierarchy()
    if os.geteuid() != 0 or hierarchy is None or hierarchy.version != 1:
        pytest.skip("needs root and a memory cgroup of version 1")
    try:
        with MemoryCgroup(hierarchy, f"deferfs-test-{os.getpid()}", 32 << 20) as group:
            yield group
    except EnvironmentProblem as error:
        pytest.skip(str(error))


def test_version_1_tells_when_it_reclaims(cgroup: MemoryCgroup, tmp_path: Path) -> None:
    """A process that fills its cgroup with page cache hears of it."""
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, str(tmp_path / "file")],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
        text=True,
        preexec_fn=lambda: cgroup.add(os.getpid()),
    )
    before, after, count = done.stdout.split()
    assert (before, after) == ("False", "True")
    assert int(count) > 0
