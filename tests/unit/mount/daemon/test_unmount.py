"""Taking a mount down from outside: what is said and raised, with a kernel and a daemon that are made up."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from deferfs.contract.answers import Outcome
from deferfs.contract.requests import GetState
from deferfs.device.identity import identity_of
from deferfs.errors import ControlError
from deferfs.mount.control import client
from deferfs.mount.control.client import NoDaemonError
from deferfs.mount.daemon import unmount as module
from deferfs.mount.daemon.unmount import UnmountError, unmount
from deferfs.mount.host import mountinfo, own_mounts
from deferfs.mount.host.mountinfo import FSTYPE, Mount
from deferfs.mount.host.own_mounts import Obstacle
from deferfs.mount.host.users import User

PLACE = "/mnt/deferfs-test"
CLEAN = Outcome(device="", inode=0, names=1, pid=77, clean=True, errors=False, problem="")


class World:
    """One mount of one image, its daemon, and what else there is."""

    def __init__(self, image: Path) -> None:
        self.image = image
        image.write_bytes(b"an image")
        identity = identity_of(str(image))
        self.mount = Mount("0:99", PLACE, FSTYPE, str(image), False, id=5)
        self.table = [self.mount]
        self.outcome: Outcome | None = replace(CLEAN, device=identity.device, inode=identity.inode)
        self.obstacle: Obstacle | None = None
        self.answers: list[str | ControlError] = []
        """Of a daemon that has not ended, to what it is asked about its state."""
        self.users: list[User] = []
        self.taken: list[str] = []
        self.notices: list[str] = []

    def unmount(self, path: str = PLACE) -> None:
        unmount(path, notice=self.notices.append)

    def take(self, mount: Mount, *, privileged: bool) -> Obstacle | None:
        if self.obstacle is None:
            self.taken.append(mount.mountpoint)
            self.table.remove(mount)
        return self.obstacle

    def state(self, mount: Mount, request: GetState, seconds: float, *, pid: int) -> str:
        answer = self.answers.pop(0)
        if isinstance(answer, ControlError):
            raise answer
        return answer


class Ending:
    """The daemon's end, which comes when it has no answers left."""

    pid = 77

    def __init__(self, world: World) -> None:
        self._world = world
        self.closed = False

    def wait(self, seconds: float) -> bool:
        return not self._world.answers

    def outcome(self) -> Outcome | None:
        return self._world.outcome

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(tmp_path / "disk.img")
    monkeypatch.setattr(client, "find_mount", lambda path: made.mount)
    monkeypatch.setattr(client, "ask_within", made.state)
    monkeypatch.setattr(module, "Ending", lambda mount: Ending(made))
    monkeypatch.setattr(mountinfo, "read", lambda process="": list(made.table) if not process else [])
    monkeypatch.setattr(mountinfo, "find_deferfs", lambda path: None)
    monkeypatch.setattr(own_mounts, "unmount", made.take)
    monkeypatch.setattr(own_mounts, "detach", made.take)
    monkeypatch.setattr(module, "users_of", lambda device: made.users)
    return made


def test_a_clean_image_is_nothing_to_talk_about(world: World) -> None:
    world.unmount()
    assert world.taken == [PLACE]
    assert world.notices == []


def test_by_its_image_all_its_mounts_go_last_made_first(world: World) -> None:
    world.table.append(Mount("0:99", "/mnt/bound", FSTYPE, str(world.image), False, id=6))
    world.table.append(Mount("0:98", "/mnt/other", FSTYPE, "/other.img", False, id=7))
    world.unmount(str(world.image))
    assert world.taken == ["/mnt/bound", PLACE]


def test_a_directory_inside_of_it_is_no_mountpoint(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mountinfo, "find_deferfs", lambda path: world.mount)
    with pytest.raises(UnmountError, match=f"not a mountpoint; it is inside of {PLACE}"):
        world.unmount(f"{PLACE}/directory")
    assert world.taken == []


@pytest.mark.parametrize(
    ("users", "said"),
    [
        (0, "busy; a hidden process uses it"),
        (2, r"busy: used by a \(pid 1, /f\), a \(pid 2, /f\)$"),
        (7, r"a \(pid 5, /f\) and 2 more$"),
    ],
)
def test_a_mount_in_use_stays_and_its_users_are_named(world: World, users: int, said: str) -> None:
    world.obstacle = Obstacle(world.mount, OSError(errno.EBUSY, "busy"))
    world.users = [User(number, "a", "/f") for number in range(1, users + 1)]
    with pytest.raises(UnmountError, match=said):
        world.unmount()
    assert world.table == [world.mount]


def test_a_mount_over_it_is_named(world: World) -> None:
    over = Mount("0:5", PLACE, "tmpfs", "tmpfs", False)
    world.obstacle = Obstacle(world.mount, OSError(errno.EBUSY, "busy"), over)
    with pytest.raises(UnmountError, match=f"tmpfs is mounted over it; unmount that first: umount {PLACE}"):
        world.unmount()


# --- the daemon ---


def dead(world: World, monkeypatch: pytest.MonkeyPatch, answer: int) -> None:
    """No daemon answers, and the kernel says `answer` about the mount."""

    def none(mount: Mount) -> Ending:
        raise NoDaemonError("none")

    def statvfs(path: str) -> None:
        if answer:
            raise OSError(answer, "said the kernel")

    monkeypatch.setattr(module, "Ending", none)
    monkeypatch.setattr(os, "statvfs", statvfs)


def test_a_mount_whose_daemon_has_died_is_detached(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    dead(world, monkeypatch, errno.ENOTCONN)
    world.unmount()
    assert world.taken == [PLACE]
    (notice,) = world.notices
    assert notice == f"{PLACE}: its daemon had died; detached (the next mount recovers {world.image})"


def test_a_mount_whose_daemon_cannot_be_asked_stays(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    dead(world, monkeypatch, 0)
    with pytest.raises(UnmountError, match="its daemon is alive, but cannot be reached"):
        world.unmount()
    assert world.taken == []


def test_a_daemon_that_takes_its_time_is_told_of_once(world: World) -> None:
    world.answers = ["stopping", "stopping"]
    world.unmount()
    assert world.notices == [f"{PLACE}: the daemon is still writing everything back"]


def test_a_daemon_that_does_not_answer_is_told_of_once_and_not_at_once(world: World) -> None:
    world.answers = [ControlError("?")]
    world.unmount()
    assert world.notices == []
    world.table.append(world.mount)
    world.answers = [ControlError("?")] * 4
    world.unmount()
    assert world.notices == [f"{PLACE}: unmounted; waiting for the daemon (pid 77), which does not answer"]


def bound_elsewhere(world: World) -> str:
    world.table.append(Mount("0:99", "/mnt/bound", FSTYPE, str(world.image), False, id=6))
    return "unmounted; the image is still mounted on /mnt/bound"


def kept_by_a_process(world: World) -> str:
    world.answers = ["serving"]
    world.users = [User(9, "cat", "/f")]
    return "it was detached while in use: the daemon keeps serving"


def kept_by_something_hidden(world: World) -> str:
    world.answers = ["serving"]
    return "another mount namespace or a hidden process still uses it"


@pytest.mark.parametrize("keep", [bound_elsewhere, kept_by_a_process, kept_by_something_hidden])
def test_an_image_that_is_still_in_use_is_told_of(world: World, keep: Callable[[World], str]) -> None:
    said = keep(world)
    world.unmount()
    (notice,) = world.notices
    assert said in notice


def test_an_image_that_was_to_be_let_go_of_must_not_be_in_use(world: World) -> None:
    said = kept_by_a_process(world)
    with pytest.raises(UnmountError, match=said):
        world.unmount(str(world.image))


# --- the image ---


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (None, "its daemon ended before it had written everything back"),
        ({"problem": "EIO"}, r"the journal was aborted \(EIO\): the last writes are lost"),
        ({"clean": False}, "not cleanly: see the daemon's log"),
    ],
)
def test_an_image_that_lacks_something_is_a_failure(world: World, outcome: dict[str, Any] | None, said: str) -> None:
    assert world.outcome is not None
    world.outcome = None if outcome is None else replace(world.outcome, **outcome)
    with pytest.raises(UnmountError, match=said):
        world.unmount()


def test_an_image_with_errors_is_to_be_repaired(world: World) -> None:
    assert world.outcome is not None
    world.outcome = replace(world.outcome, errors=True)
    world.unmount()
    assert world.notices == [f"{world.image}: marked as having errors; repair it: deferfs fsck -y {world.image}"]


def test_an_image_that_was_moved_is_told_of(world: World) -> None:
    world.image.rename(world.image.with_name("moved.img"))
    world.unmount()
    (notice,) = world.notices
    assert "was moved or deleted while it was mounted" in notice
    world.table.append(world.mount)
    world.image.write_bytes(b"another")
    world.unmount()
    assert "was moved or replaced by another file" in world.notices[1]


def test_an_image_that_was_deleted_is_a_failure(world: World) -> None:
    assert world.outcome is not None
    world.image.unlink()
    world.outcome = replace(world.outcome, names=0)
    with pytest.raises(UnmountError, match="it was deleted while it was mounted: what was written to it is gone"):
        world.unmount()
