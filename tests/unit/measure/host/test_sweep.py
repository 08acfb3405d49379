"""What is found of a broken-off pass. Undoing it is tried on real mounts, in tests/mounted."""

from pathlib import Path

from deferfs.measure.host.cgroup import Hierarchy
from deferfs.measure.host.sweep import cgroups_of, loops_below, mounts_below, sweep

MOUNTINFO = """\
22 1 254:0 / / rw - ext4 /dev/vda rw
30 22 0:25 / /tmp/bench/a\\040b rw - fuse.deferfs /x rw
31 30 7:0 / /tmp/bench/a\\040b/over rw shared:1 - overlay overlay rw
32 22 7:0 / /tmp/bench-of-others rw - xfs /dev/loop0 rw
"""


def test_mounts_are_found_the_last_one_first() -> None:
    assert mounts_below(Path("/tmp/bench"), MOUNTINFO) == [
        (Path("/tmp/bench/a b/over"), "overlay"),
        (Path("/tmp/bench/a b"), "fuse.deferfs"),
    ]


def test_loop_devices_are_found_by_their_file(tmp_path: Path) -> None:
    for name, file in (("loop0", "/tmp/bench/disk (deleted)"), ("loop1", "/tmp/bench-of-others/disk")):
        (tmp_path / name / "loop").mkdir(parents=True)
        (tmp_path / name / "loop" / "backing_file").write_text(f"{file}\n")
    assert loops_below(Path("/tmp/bench"), tmp_path) == ["loop0"]


def test_only_cgroups_of_this_process_are_ours(tmp_path: Path) -> None:
    names = (
        "deferfs-bench-12",
        "deferfs-bench-12-daemon",
        "deferfs-bench-123",
        "deferfs-12",
        "other-12",
        "deferfs-312",
    )
    for name in names:
        (tmp_path / name).mkdir()
    found = {path.name for path in cgroups_of(12, Hierarchy(2, tmp_path, tmp_path))}
    assert found == {"deferfs-bench-12", "deferfs-bench-12-daemon", "deferfs-12"}


def test_the_scratch_directory_is_removed(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (scratch / "image").touch()
    said: list[str] = []
    sweep(scratch, None, said.append)
    assert not scratch.exists() and said == []
