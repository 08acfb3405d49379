import contextlib
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from deferfs.errors import DeferfsError, EnvironmentProblem
from deferfs.measure.mounts import filesystems
from deferfs.measure.mounts.filesystems import FILESYSTEMS, loop_device, make, missing, mounted, overlaid, unmount


class Machine:
    """Commands are noted, not run. `fails`: beginnings of those that fail, with how often."""

    def __init__(self) -> None:
        self.commands: list[str] = []
        self.fails: dict[str, int] = {}
        self.mounts: set[str] = set()

    def run(self, command: Sequence[str], seconds_max: float = 0.0, enter: object = None) -> str:
        words = " ".join(command)
        self.commands.append(words)
        for beginning, times in self.fails.items():
            if words.startswith(beginning) and times:
                self.fails[beginning] -= 1
                raise DeferfsError(f"`{words}` failed")
        if command[0] == "mount":
            self.mounts.add(command[-1])
        if command[:2] == ["deferfs", "mount"]:
            self.mounts.add(command[3])
        if "umount" in command[:2]:
            self.mounts.discard(command[-1])
        return "/dev/loop7\n"


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    machine = Machine()
    known = tmp_path / "filesystems"
    known.write_text("nodev\ttmpfs\nnodev\toverlay\n\text4\n\txfs\nnodev\tfuse\n")
    monkeypatch.setattr(filesystems, "KNOWN_TO_THE_KERNEL", known)
    monkeypatch.setattr(filesystems, "FUSE_DEVICE", tmp_path / "fuse")
    monkeypatch.setattr(filesystems, "run_command", machine.run)
    monkeypatch.setattr(filesystems, "run_deferfs", lambda words, *rest, **named: machine.run(["deferfs", *words]))
    monkeypatch.setattr(filesystems, "UNMOUNT_PAUSE_SECONDS", 0)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os.path, "ismount", lambda path: str(path) in machine.mounts)
    monkeypatch.setattr(shutil, "which", lambda name: f"/sbin/{name}" if name == "mkfs.ext4" else None)
    return machine


def test_missing_requirements_are_named(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    lacks = {name: missing(filesystem) for name, filesystem in FILESYSTEMS.items()}
    assert lacks == {
        "ext4": "",
        "xfs": "mkfs.xfs is missing: install the package xfsprogs",
        "btrfs": "mkfs.btrfs is missing: install the package btrfs-progs",
        "deferfs": f"{filesystems.FUSE_DEVICE} is missing",
        "tmpfs": "",
    }
    monkeypatch.setattr(shutil, "which", lambda name: f"/sbin/{name}" if name.startswith("mkfs.") else None)
    assert missing(FILESYSTEMS["btrfs"]) == "this kernel has no btrfs"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert missing(FILESYSTEMS["tmpfs"]) == "mounting tmpfs needs root"


def test_made_mounted_and_unmounted(machine: Machine) -> None:
    device, mountpoint = Path("/dev/loop7"), Path("/m")
    for name in ("ext4", "deferfs", "tmpfs"):
        make(FILESYSTEMS[name], device)
        with mounted(FILESYSTEMS[name], device, mountpoint, "evict=inline" if name == "deferfs" else ""):
            assert machine.mounts == {"/m"}
    assert machine.commands == [
        "mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 /dev/loop7",
        "mount -t ext4 /dev/loop7 /m",
        "umount /m",
        "deferfs mkfs -q -f /dev/loop7",
        "deferfs mount /dev/loop7 /m -o evict=inline",
        "deferfs umount /m",
        "mount -t tmpfs /dev/loop7 /m",
        "umount /m",
    ]


def test_a_failure_inside_unmounts(machine: Machine) -> None:
    with pytest.raises(KeyboardInterrupt), overlaid(Path("/lower"), Path("/empty"), Path("/m")):
        raise KeyboardInterrupt
    assert machine.commands == ["mount -t overlay overlay -o lowerdir=/lower:/empty /m", "umount /m"]
    assert not machine.mounts


def test_a_busy_mount_is_unmounted_later(machine: Machine) -> None:
    machine.mounts.add("/m")
    machine.fails["umount /m"] = 3
    unmount(Path("/m"))
    assert machine.commands == ["umount /m"] * 4


def test_unmount_that_succeeds_does_not_pause(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time until a mount is gone is part of what is measured."""
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    machine.mounts.add("/m")
    unmount(Path("/m"))
    assert (machine.mounts, pauses) == (set(), [])


def test_a_mount_that_stays_busy_is_detached_and_reported(machine: Machine) -> None:
    machine.mounts.add("/m")
    machine.fails["umount /m"] = filesystems.UNMOUNT_ATTEMPTS
    with pytest.raises(DeferfsError, match="/m stayed busy and was only detached"):
        unmount(Path("/m"))
    assert not machine.mounts


def test_a_daemon_that_does_not_answer_is_detached(machine: Machine) -> None:
    machine.mounts.add("/m")
    machine.fails["deferfs umount"] = filesystems.UNMOUNT_ATTEMPTS
    with pytest.raises(DeferfsError, match="was only detached"):
        unmount(Path("/m"), lambda: machine.run(["deferfs", "umount", "/m"]))
    assert machine.commands[-1] == "umount --lazy /m"


def test_loop_devices(machine: Machine) -> None:
    with contextlib.suppress(ZeroDivisionError), loop_device(Path("/image")) as device:
        assert device == Path("/dev/loop7")
        raise ZeroDivisionError
    assert machine.commands == ["losetup --find --show /image", "losetup --detach /dev/loop7"]
    machine.fails["losetup --find"] = 1
    with pytest.raises(EnvironmentProblem, match="no loop device can be had"), loop_device(Path("/image")):
        pass
