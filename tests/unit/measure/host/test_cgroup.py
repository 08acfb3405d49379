import os
import shutil
from pathlib import Path

import pytest

from deferfs.errors import EnvironmentProblem
from deferfs.measure.host import cgroup
from deferfs.measure.host.cgroup import Hierarchy, MemoryCgroup, find_hierarchy, parse_flat_keyed
from deferfs.measure.host.pressure import Pressure

V1_FILES = {
    "memory.limit_in_bytes": "9223372036854771712",
    "memory.swappiness": "60",
    "memory.usage_in_bytes": "1000",
    "memory.max_usage_in_bytes": "2000",
    "memory.failcnt": "34",
    "memory.kmem.usage_in_bytes": "500",
    "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
    "memory.stat": "cache 400\nrss 300\nmapped_file 7\ntotal_cache 400\n",
    "cgroup.procs": "",
}
V2_FILES = {
    "memory.max": "max",
    "memory.swap.max": "max",
    "memory.current": "1000",
    "memory.peak": "2000",
    "memory.events": "low 0\nhigh 0\nmax 34\noom 1\noom_kill 2\noom_group_kill 0\n",
    "memory.stat": "anon 300\nfile 400\nkernel 500\nslab_reclaimable 450\nfile_mapped 7\n",
    "memory.pressure": "some avg10=0.00 total=11\nfull avg10=0.00 total=5\n",
    "cgroup.procs": "",
}
PRESSURE_ONLY = {"cgroup.procs": "", "memory.pressure": V2_FILES["memory.pressure"]}


class FakeKernel:
    """Fills a new directory of a fake cgroup tree with its files, as the kernel does."""

    def __init__(self) -> None:
        self.files: dict[Path, dict[str, str]] = {}

    def make(self, directory: Path) -> None:
        directory.mkdir()
        for name, text in self.files[directory.parent].items():
            (directory / name).write_text(text)

    def remove(self, directory: Path) -> None:
        shutil.rmtree(directory)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> FakeKernel:
    fake = FakeKernel()
    monkeypatch.setattr(cgroup, "_make", fake.make)
    monkeypatch.setattr(cgroup, "_remove", fake.remove)
    return fake


@pytest.fixture
def v1(tmp_path: Path, kernel: FakeKernel) -> Path:
    for name in ("memory", "unified"):
        (tmp_path / name).mkdir()
    (tmp_path / "memory/memory.limit_in_bytes").write_text("9223372036854771712")
    (tmp_path / "unified/cgroup.procs").write_text("")
    kernel.files = {tmp_path / "memory": V1_FILES, tmp_path / "unified": PRESSURE_ONLY}
    return tmp_path


@pytest.fixture
def v2(tmp_path: Path, kernel: FakeKernel) -> Path:
    (tmp_path / "cgroup.controllers").write_text("cpu io memory pids\n")
    (tmp_path / "cgroup.subtree_control").write_text("cpu\n")
    kernel.files = {tmp_path: V2_FILES}
    return tmp_path


def hierarchy_of(root: Path) -> Hierarchy:
    hierarchy = find_hierarchy(root)
    assert hierarchy is not None
    return hierarchy


def test_version_1_with_the_unified_hierarchy_beside_it(v1: Path) -> None:
    assert find_hierarchy(v1) == Hierarchy(1, v1 / "memory", v1 / "unified")


def test_version_1_alone(v1: Path) -> None:
    (v1 / "unified/cgroup.procs").unlink()
    assert find_hierarchy(v1) == Hierarchy(1, v1 / "memory", None)


def test_version_2(v2: Path) -> None:
    assert find_hierarchy(v2) == Hierarchy(2, v2, v2)


def test_no_memory_controller(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpu pids\n")
    assert find_hierarchy(tmp_path) is None


def test_version_1_limits_reads_and_leaves_nothing(v1: Path) -> None:
    with MemoryCgroup(hierarchy_of(v1), "bench", 1 << 20) as group:
        ours = v1 / "memory/bench"
        assert (ours / "memory.limit_in_bytes").read_text() == str(1 << 20)
        assert (ours / "memory.swappiness").read_text() == "0"
        group.add(123)
        assert (ours / "cgroup.procs").read_text() == "123"
        assert (v1 / "unified/bench/cgroup.procs").read_text() == "123"
        reading = group.read()
    assert (reading.usage_bytes, reading.usage_bytes_max) == (1000, 2000)
    assert (reading.limit_hits, reading.oom_kills, reading.kernel_bytes) == (34, 2, 500)
    assert reading.statistics == {"cache": 400, "rss": 300}
    assert reading.pressure == {"memory": Pressure(11, 5)}
    assert not ours.exists()
    assert not (v1 / "unified/bench").exists()


def test_version_1_changes_the_limit_of_a_living_cgroup(v1: Path) -> None:
    with MemoryCgroup(hierarchy_of(v1), "bench", None) as group:
        limit = v1 / "memory/bench/memory.limit_in_bytes"
        assert limit.read_text() == "-1"
        group.set_limit(5 << 20)
        assert limit.read_text() == str(5 << 20)


def test_version_2_changes_the_limit_of_a_living_cgroup(v2: Path) -> None:
    with MemoryCgroup(hierarchy_of(v2), "bench", None) as group:
        limit = v2 / "bench/memory.max"
        assert limit.read_text() == "max"
        group.set_limit(5 << 20)
        assert limit.read_text() == str(5 << 20)
        group.set_limit(None)
        assert limit.read_text() == "max"


def test_version_2_limits_reads_and_leaves_nothing(v2: Path) -> None:
    with MemoryCgroup(hierarchy_of(v2), "bench", 1 << 20) as group:
        ours = v2 / "bench"
        assert (v2 / "cgroup.subtree_control").read_text() == "+memory"
        assert (ours / "memory.max").read_text() == str(1 << 20)
        assert (ours / "memory.swap.max").read_text() == "0"
        group.add(123)
        assert (ours / "cgroup.procs").read_text() == "123"
        reading = group.read()
    assert (reading.usage_bytes, reading.usage_bytes_max) == (1000, 2000)
    assert (reading.limit_hits, reading.oom_kills, reading.kernel_bytes) == (34, 2, 500)
    assert reading.statistics == {"anon": 300, "file": 400, "kernel": 500, "slab_reclaimable": 450}
    assert reading.pressure == {"memory": Pressure(11, 5)}
    assert not ours.exists()


def test_a_kernel_without_swap(v2: Path, kernel: FakeKernel) -> None:
    kernel.files[v2] = {name: text for name, text in V2_FILES.items() if "swap" not in name}
    with MemoryCgroup(hierarchy_of(v2), "bench", 1 << 20) as group:
        assert group.read().limit_hits == 34


def test_a_limit_that_cannot_be_set_is_said_and_cleaned_up(v2: Path, kernel: FakeKernel) -> None:
    kernel.files[v2] = {}
    with pytest.raises(EnvironmentProblem, match=r"cannot set up the memory cgroup .*bench"):
        MemoryCgroup(hierarchy_of(v2), "bench", 1 << 20).__enter__()
    assert not (v2 / "bench").exists()


def test_flat_keyed_files_skip_what_is_no_number() -> None:
    assert parse_flat_keyed("a 1\nb max\n\nc -2\nd\n") == {"a": 1, "c": -2}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.skipif(find_hierarchy() is None, reason="needs a memory cgroup controller")
def test_the_cgroups_of_this_machine() -> None:
    hierarchy = hierarchy_of(cgroup.CGROUP_ROOT)
    name = f"deferfs-test-{os.getpid()}"
    with MemoryCgroup(hierarchy, name, 16 << 20) as group:
        pid = os.fork()
        if pid == 0:
            try:
                group.add(os.getpid())
                touched = bytearray(1 << 20)
                code = 0 if touched and group.read().usage_bytes > 0 else 1
            except BaseException:
                code = 2
            os._exit(code)
        _, status = os.waitpid(pid, 0)
        reading = group.read()
    assert os.waitstatus_to_exitcode(status) == 0
    assert 0 < reading.usage_bytes_max <= 16 << 20
    assert not (hierarchy.memory / name).exists()
