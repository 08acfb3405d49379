import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from deferfs.errors import DeferfsError
from deferfs.measure import slow_disk
from deferfs.measure.mounts import filesystems, stage
from deferfs.measure.mounts.filesystems import Filesystem
from deferfs.measure.mounts.stage import SIDES, filesystem_of, missing, prepared_stage, slab_objects
from deferfs.measure.mounts.syncing import sync_filesystem
from deferfs.measure.work.scattered import BLOCK, STRIDE_BYTES, data_bytes, make_scattered, scattered_paths
from tests.unit.measure.fakes import without_daemons

SLABS = """\
slabinfo - version: 2.1
# name            <active_objs> <num_objs> <objsize>
xfs_inode             48    112   1024   16    4 : tunables    0    0    0 : slabdata      7      7      0
xfs_inode_item        12     20    200   20    1 : tunables    0    0    0 : slabdata      1      1      0
"""


def test_sides_and_their_filesystems() -> None:
    assert [filesystem_of(side).name for side in SIDES] == ["ext4", "xfs", "btrfs", "deferfs", "deferfs", "tmpfs"]


def test_objects_of_a_slab_cache() -> None:
    assert slab_objects("xfs_inode", SLABS) == 48
    assert slab_objects("ext4_inode_cache", SLABS) == 0


def test_slabs_that_may_not_be_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(stage, "SLAB_INFO", tmp_path / "nothing")
    assert slab_objects("xfs_inode") == 0


def test_a_disk_is_missed_where_one_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filesystems, "missing", lambda filesystem: "")
    monkeypatch.setattr(slow_disk, "missing", lambda: "no loop devices")
    assert {side.name: missing(side) for side in SIDES if missing(side)} == dict.fromkeys(
        ("ext4", "xfs", "btrfs", "inline", "deferred"), "no loop devices"
    )


def test_syncing_what_is_not_there(tmp_path: Path) -> None:
    sync_filesystem(tmp_path)
    with pytest.raises(DeferfsError, match="cannot sync"):
        sync_filesystem(tmp_path / "nothing")


def test_scattered_files(tmp_path: Path) -> None:
    make_scattered(tmp_path, 203, 4, every=3)
    files = [Path(path) for path in scattered_paths(tmp_path, 203)]
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(files)
    sizes = [path.stat().st_size for path in files]
    assert sizes[:4] == [3 * STRIDE_BYTES + len(BLOCK), len(BLOCK), len(BLOCK), 3 * STRIDE_BYTES + len(BLOCK)]
    assert data_bytes(203, 4) == 203 * 4 * len(BLOCK)


def test_empty_files(tmp_path: Path) -> None:
    make_scattered(tmp_path, 5, 0, every=2)
    assert {Path(path).stat().st_size for path in scattered_paths(tmp_path, 5)} == {0}


class Makes:
    """Filesystems that are only noted, each with a file in its mountpoint. `failing`: one that cannot be made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, failing: str = "") -> None:
        self.made: list[str] = []
        self.left: list[str] = []
        self._failing = failing
        monkeypatch.setattr(stage, "missing", lambda side: "")
        monkeypatch.setattr(stage, "daemon_of", lambda root, surroundings: 1)
        monkeypatch.setattr(filesystems, "loop_device", contextlib.nullcontext)
        monkeypatch.setattr(filesystems, "make", self._make)
        monkeypatch.setattr(filesystems, "mounted", self._mounted)

    def _make(self, filesystem: Filesystem, device: Path) -> None:
        if filesystem.name == self._failing:
            raise DeferfsError(f"no {filesystem.name}")
        self.made.append(filesystem.name)

    @contextlib.contextmanager
    def _mounted(self, filesystem: Filesystem, device: Path, mountpoint: Path) -> Iterator[Path]:
        assert (device.name, mountpoint.name) == (f"{filesystem.name}.img", filesystem.name)
        assert list(mountpoint.iterdir()) == []
        try:
            yield mountpoint
        finally:
            (mountpoint / "file").unlink(missing_ok=True)
            self.left.append(filesystem.name)


def prepare(tmp_path: Path) -> list[str]:
    """What there is in the scratch directory of a stage."""
    with prepared_stage(without_daemons(tmp_path), 1 << 20, lambda root: (root / "file").touch(), SIDES):
        return sorted(path.name for path in tmp_path.iterdir())


def test_each_filesystem_is_made_and_unmounted_before_the_first_pass(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    makes = Makes(monkeypatch)
    images = ["btrfs.img", "deferfs.img", "ext4.img", "xfs.img"]
    assert prepare(tmp_path) == sorted([*images, "empty", "merged", "mnt"])
    assert makes.made == makes.left[::-1] == ["deferfs", "btrfs", "xfs", "ext4"]
    assert list(tmp_path.iterdir()) == []


def test_a_filesystem_that_cannot_be_made_ends_the_preparation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    makes = Makes(monkeypatch, failing="ext4")
    with pytest.raises(DeferfsError, match="no ext4"):
        prepare(tmp_path)
    assert makes.made == makes.left[::-1] == ["deferfs", "btrfs", "xfs"]
    assert list(tmp_path.iterdir()) == []
