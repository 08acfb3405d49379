"""What goes wrong before there is a disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deferfs.errors import EnvironmentProblem, UsageError
from deferfs.measure.slow_disk import SlowDisk, SlowDiskError, disk, kernel, missing


def ignore(pid: int) -> None:
    raise AssertionError(f"a server was started: {pid}")


def test_without_root_nothing_is_tried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert missing() == "a slow disk needs root"
    with pytest.raises(EnvironmentProblem, match="needs root"), SlowDisk(tmp_path / "image", "none", tmp_path, ignore):
        pass


@pytest.mark.parametrize("name", ["FUSE_DEVICE", "LOOP_CONTROL"])
def test_a_device_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    for each in ("FUSE_DEVICE", "LOOP_CONTROL"):
        (tmp_path / each).touch()
        monkeypatch.setattr(kernel, each, str(tmp_path / each))
    (tmp_path / name).unlink()
    assert missing() == f"a slow disk needs {tmp_path / name}: No such file or directory"


def test_the_right_to_mount_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> int:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    for each in ("FUSE_DEVICE", "LOOP_CONTROL"):
        monkeypatch.setattr(kernel, each, os.devnull)
    monkeypatch.setattr(kernel, "fuse_context", refused)
    assert missing() == "a slow disk needs the right to mount FUSE filesystems: Operation not permitted"


def test_an_unknown_preset_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no disk is called 'floppy'"):
        SlowDisk(tmp_path / "image", "floppy", tmp_path, ignore)


def test_images_that_are_no_disks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(disk, "missing", lambda: "")
    (tmp_path / "empty").touch()
    (tmp_path / "odd").write_bytes(bytes(513))
    (tmp_path / "directory").mkdir()
    for name, said in {
        "absent": "No such file or directory",
        "empty": "its size is 0 bytes",
        "odd": "its size is 513 bytes, no multiple of 512",
        "directory": "Is a directory",
    }.items():
        with pytest.raises(SlowDiskError) as caught, SlowDisk(tmp_path / name, "none", tmp_path, ignore):
            pass
        assert str(caught.value).startswith(f"cannot use {tmp_path / name} as a disk: ")
        assert said in str(caught.value)


def test_without_a_disk_nothing_is_known_of_it(tmp_path: Path) -> None:
    slow = SlowDisk(tmp_path / "image", "none", tmp_path, ignore)
    assert slow.counters() == {}
    for wanted in (lambda: slow.device, lambda: slow.pid, lambda: slow.set_preset("hdd")):
        with pytest.raises(SlowDiskError, match="not attached"):
            wanted()
