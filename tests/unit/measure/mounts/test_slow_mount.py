"""What a mount on a slow disk leaves behind, and what it does when something fails: commands are only noted."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import pytest

from deferfs.errors import DeferfsError
from deferfs.measure.mounts import slow_mount
from deferfs.measure.mounts.slow_mount import DRAIN_SECONDS, prepared_image
from deferfs.measure.work.processes import Worker
from tests.unit.measure.slow_mounts import Machine, fake_machine


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return fake_machine(monkeypatch)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "prepared.img"
    path.write_bytes(b"image")
    return path


def test_a_pass_works_on_a_copy_and_unmounts_before_the_end(machine: Machine, image: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    with slow_mount.slow_mount(image, ["evict=inline", "noatime"], machine.surroundings(scratch)) as mount:
        assert (scratch / "pass" / "image").read_bytes() == b"image"
        assert machine.disks[0].is_attached()
        mount.close()
    device, root = scratch / "pass" / "image", scratch / "pass" / "mnt"
    assert machine.commands == [f"mount {device} {root} -o evict=inline,noatime", f"umount {root}"]
    assert machine.settings == [("drain", str(DRAIN_SECONDS))]
    assert not machine.disks[0].is_attached()
    assert list(scratch.iterdir()) == []


FAILURES = (DeferfsError("no"), OSError("no"), KeyboardInterrupt())


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("command", ["mount", "ask"])
def test_nothing_is_left_when_a_step_fails(
    command: str, failure: BaseException, machine: Machine, image: Path, tmp_path: Path
) -> None:
    """What is mounted is unmounted with a disk that is quick."""
    machine.failures[command] = failure
    scratch = tmp_path / "scratch"
    with (
        pytest.raises(type(failure)),
        slow_mount.slow_mount(image, ["noatime"], machine.surroundings(scratch)),
    ):
        pass
    assert not machine.mounted
    assert list(scratch.iterdir()) == []
    assert not machine.disks[0].is_attached()
    assert machine.disks[0].presets == ["the disk", "none"][: 1 if command == "mount" else 2]


@pytest.mark.parametrize("failure", FAILURES)
def test_an_unmount_is_tried_again(failure: BaseException, machine: Machine, image: Path, tmp_path: Path) -> None:
    """A mount that is busy for a moment is no problem; after another failure the disk is quick first."""
    machine.failures["umount"] = failure
    scratch = tmp_path / "scratch"
    busy = isinstance(failure, DeferfsError)
    with (
        contextlib.nullcontext() if busy else pytest.raises(type(failure)),
        slow_mount.slow_mount(image, ["noatime"], machine.surroundings(scratch)) as mount,
    ):
        mount.close()
        assert busy
        assert machine.disks[0].presets == ["the disk"]
    assert machine.disks[0].presets == ["the disk", "none"]
    assert not machine.mounted
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("failure", FAILURES)
def test_nothing_is_left_when_the_pass_fails(
    failure: BaseException, machine: Machine, image: Path, tmp_path: Path
) -> None:
    scratch = tmp_path / "scratch"
    with pytest.raises(type(failure)), slow_mount.slow_mount(image, ["noatime"], machine.surroundings(scratch)):
        raise failure
    assert not machine.mounted
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("failure", FAILURES)
def test_an_image_that_could_not_be_prepared_is_mounted_no_more(
    failure: BaseException, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process that fills it is ended first."""

    def breaks_off(worker: Worker, seconds_max: float) -> None:
        raise failure

    monkeypatch.setattr(Worker, "wait_ready", breaks_off)
    with (
        pytest.raises(type(failure)),
        prepared_image(machine.surroundings(tmp_path), lambda root: time.sleep(60)) as image,
    ):
        image()
    assert len(machine.commands) == 3
    assert not machine.mounted
    assert list(tmp_path.iterdir()) == []


def test_a_prepared_image(machine: Machine, tmp_path: Path) -> None:
    filled = tmp_path / "filled"
    with prepared_image(machine.surroundings(tmp_path), lambda root: filled.write_text(str(root)), "1G") as finished:
        image = finished()
        assert filled.read_text() == str(tmp_path / "prepared")
        assert machine.commands[0] == f"mkfs {image} --size 1G"
        assert not machine.mounted
    assert list(tmp_path.iterdir()) == [filled]
