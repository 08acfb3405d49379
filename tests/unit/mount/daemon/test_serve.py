"""Serving a mount, from its first request to the clean image, with a kernel that is made up."""

from __future__ import annotations

import errno
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.lowlevel

from deferfs.contract.answers import Outcome
from deferfs.device.identity import Identity
from deferfs.errors import EnvironmentProblem, FsError, MountFailedError, UsageError
from deferfs.limits import HANDLERS_MAX
from deferfs.mount.control import paths
from deferfs.mount.daemon import serve
from deferfs.mount.daemon.notify import Notifier
from deferfs.mount.daemon.serve import READER_BYTES, READERS_FEW, Server, readers_max
from deferfs.mount.host.mountinfo import Mount
from deferfs.mount.host.own_mounts import Obstacle
from deferfs.mount.runtime.busy_poll import BusyPoll
from deferfs.mount.runtime.runtime import Runtime
from deferfs.store.io import run_job
from deferfs.store.recovery import read_superblock
from tests.unit.runtimes import make_file
from tests.unit.volumes import fresh_device, open_driver

SECONDS_MAX = 30


class Kernel:
    """The mount, the FUSE loop and the adapter in one. `log` tells what was asked of it, in order."""

    image = "disk.img"

    def __init__(self, mountpoint: str) -> None:
        self.mountpoint = mountpoint
        self.fd, self._end = os.pipe()
        self.log: list[str] = []
        self.alive = True
        self.busy = False
        self.sync_reaches = True
        self.sync_error: OSError | None = None
        self.refuses_remount = False
        self.writes_total = 0
        self.writes_in_flight = 0
        self.invalidate_attributes: Callable[[int], None] = self._invalidate_attributes
        self._ended = trio.Event()

    # the FUSE loop
    async def serve(self, busy_poll: BusyPoll, handlers: int) -> None:
        await self._ended.wait()

    def terminate(self) -> None:
        self.log.append("terminate")
        self.let_go()

    def let_go(self) -> None:
        self.alive = False
        self._ended.set()

    def close(self) -> None:
        self.log.append("close")
        os.close(self.fd)
        os.close(self._end)

    def invalidate_entry(self, parent: int, name: bytes) -> None: ...

    def _invalidate_attributes(self, ino: int) -> None: ...

    def invalidate_contents(self, inodes: list[int]) -> None:
        self.log.append(f"collect {inodes}")

    # the adapter
    def open_inodes(self) -> list[int]:
        return [7]

    # the mount
    @property
    def device(self) -> str:
        return "0:99"

    def is_alive(self) -> bool:
        return self.alive

    def open(self) -> int | None:
        return None

    def unmount(self) -> list[Obstacle]:
        self.log.append("unmount")
        if self.busy:
            mount = Mount("0:99", self.mountpoint, "fuse.deferfs", self.image, False)
            return [Obstacle(mount, OSError(errno.EBUSY, "busy"))]
        trio.from_thread.run_sync(self.let_go)
        return []

    def detach(self) -> list[Obstacle]:
        self.log.append("detach")
        return []

    def sync(self) -> bool:
        self.log.append("sync")
        if self.sync_error is not None:
            raise self.sync_error
        return self.sync_reaches

    def set_read_only(self, read_only: bool) -> None:
        self.log.append(f"ro={read_only:d}")
        if self.refuses_remount:
            raise OSError(errno.EBUSY, "Device or resource busy")


class Image:
    """An image file."""

    def identity(self) -> Identity:
        return Identity("8:1", 12)

    def names(self) -> int:
        return 1


class Handshake:
    """The command that mounts."""

    def __init__(self, *, there: bool = True) -> None:
        self._there = there
        self.told = trio.Event()

    def ready(self) -> bool:
        trio.from_thread.run_sync(self.told.set)
        return self._there

    def is_wanted(self) -> bool:
        return self._there


class Stage:
    """A server and what is around it."""

    def __init__(self, mountpoint: Path, *, there: bool = True) -> None:
        self.device = fresh_device()
        driver = open_driver(self.device)
        self.runtime = Runtime(self.device, driver.volume, commit_seconds=3600)
        self.kernel = Kernel(str(mountpoint))
        self.handshake = Handshake(there=there)
        self.server = Server(
            self.runtime, self.kernel, Image(), self.kernel, self.handshake, Notifier(""), requests=self.kernel
        )

    def is_clean(self) -> bool:
        return run_job(self.device, read_superblock(self.device.size)).clean


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No control socket and no pressure of the machine's own; a moment is short."""
    (tmp_path / "mnt").mkdir()
    monkeypatch.setattr(paths, "control_directories", lambda uid: [str(tmp_path / "run")])
    monkeypatch.setattr(serve, "open_sources", list)
    monkeypatch.setattr(serve, "QUIET_SECONDS", 0.001)


@asynccontextmanager
async def serving(tmp_path: Path) -> AsyncIterator[Stage]:
    """Until the kernel lets go at the end."""
    stage = Stage(tmp_path / "mnt")
    with trio.fail_after(SECONDS_MAX):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stage.server.run)
            await stage.handshake.told.wait()
            yield stage
            stage.kernel.let_go()


@pytest.mark.parametrize(
    ("budget", "readers"),
    [(0, READERS_FEW), (40 * READER_BYTES, 40), (1 << 40, HANDLERS_MAX)],
)
def test_the_buffers_of_all_requests_under_way_fit_into_the_budget(budget: int, readers: int) -> None:
    assert readers_max(budget) == readers


async def test_the_image_is_clean_when_the_kernel_has_let_go(tmp_path: Path) -> None:
    async with serving(tmp_path) as stage:
        assert stage.server.state() == "serving"
        assert len(os.listdir(tmp_path / "run")) == 1
        await make_file(stage.runtime, b"file", b"x" * 5000)
        assert not stage.is_clean()
    assert stage.kernel.log == ["close"]
    assert stage.server.state() == "stopping"
    assert stage.is_clean()
    assert os.listdir(tmp_path / "run") == []


async def test_a_daemon_whose_handlers_still_clean_up_after_the_unmount_is_stopping(tmp_path: Path) -> None:
    """Else `deferfs umount` takes it for a mount that another process keeps, and does not wait for it."""
    async with serving(tmp_path) as stage:
        stage.kernel.alive = False  # the loop ends when its handlers have
        assert stage.server.state() == "stopping"


async def test_the_outcome_is_told_when_the_image_is_closed(tmp_path: Path) -> None:
    outcomes: list[Outcome] = []
    async with trio.open_nursery() as nursery, serving(tmp_path) as stage:

        async def ask() -> None:
            outcomes.append(await stage.server.outcome())

        nursery.start_soon(ask)
        await make_file(stage.runtime, b"file")
        await trio.testing.wait_all_tasks_blocked()
        assert outcomes == []
    (outcome,) = outcomes
    assert outcome == Outcome(device="8:1", inode=12, names=1, pid=os.getpid(), clean=True, errors=False, problem="")


async def test_a_root_that_cannot_be_read_is_no_mount(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "none")
    with trio.fail_after(SECONDS_MAX), pytest.RaisesGroup(pytest.RaisesExc(MountFailedError, match="cannot be read")):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stage.server.run)
    assert stage.kernel.log == ["detach", "terminate", "close"]
    assert stage.is_clean()


async def test_a_mount_whose_command_is_gone_is_unmounted(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "mnt", there=False)
    with trio.fail_after(SECONDS_MAX), pytest.raises(MountFailedError, match="was interrupted"):
        await stage.server.run()
    assert stage.kernel.log == ["detach", "terminate", "close"]
    assert stage.is_clean()


async def test_a_place_without_room_for_the_control_socket_is_no_mount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "control_directories", lambda uid: ["/proc/none"])
    stage = Stage(tmp_path / "mnt")
    with trio.fail_after(SECONDS_MAX), pytest.raises(EnvironmentProblem, match="cannot create the control socket"):
        await stage.server.run()
    assert stage.kernel.log == ["detach", "terminate", "close"]


# --- signals ---


async def test_a_request_to_terminate_takes_the_mount_away(tmp_path: Path) -> None:
    async with serving(tmp_path) as stage:
        os.kill(os.getpid(), signal.SIGTERM)
        while stage.kernel.alive:
            await trio.lowlevel.checkpoint()
    assert stage.kernel.log == ["unmount", "close"]
    assert stage.is_clean()


async def test_a_second_one_does_not_wait_for_its_users(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(tmp_path) as stage:
        stage.kernel.busy = True
        os.kill(os.getpid(), signal.SIGINT)
        while "unmount" not in stage.kernel.log:
            await trio.lowlevel.checkpoint()
        os.kill(os.getpid(), signal.SIGINT)
        while stage.kernel.alive:
            await trio.lowlevel.checkpoint()
    assert [word for word in stage.kernel.log if word != "unmount"] == ["detach", "collect [7]", "terminate", "close"]
    assert stage.is_clean()


async def test_a_hangup_changes_nothing_and_usr1_tells_what_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with serving(tmp_path) as stage:
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGUSR1)
        while "statistics: " not in caplog.text:
            await trio.lowlevel.checkpoint()
        assert stage.kernel.alive
    assert "task deferfs.mount.daemon.serve.Server.run" in caplog.text
    assert '"mountpoint": ' in caplog.text
    assert stage.kernel.log == ["close"]


# --- what is asked over the control socket ---


async def test_a_freeze_waits_for_what_the_kernel_holds_back(tmp_path: Path) -> None:
    async with serving(tmp_path) as stage:
        assert await stage.server.set("freeze", "1") == "freeze=1"
        assert stage.kernel.log == ["sync"]
        assert stage.runtime.store.frozen
        await stage.server.set("freeze", "0")
        stage.kernel.sync_reaches = False
        await stage.server.set("freeze", "1")
        assert stage.kernel.log == ["sync", "sync", "collect [7]"], "no path leads to the mount"
        assert stage.runtime.volume.content_times
    assert stage.is_clean()


async def test_nothing_is_frozen_when_the_kernel_lost_writes(tmp_path: Path) -> None:
    async with serving(tmp_path) as stage:
        stage.kernel.sync_error = OSError(errno.EIO, "Input/output error")
        with pytest.raises(FsError, match="not frozen: the kernel's dirty pages could not be written"):
            await stage.server.set("freeze", "1")
        assert not stage.runtime.store.frozen


async def test_the_kernel_refuses_changes_first_and_allows_them_last(tmp_path: Path) -> None:
    async with serving(tmp_path) as stage:
        store = stage.runtime.store
        await stage.server.set("ro", "1")
        assert (store.read_only, stage.kernel.log) == (True, ["ro=1"])
        await stage.server.set("ro", "0")
        assert (store.read_only, stage.kernel.log) == (False, ["ro=1", "ro=0"])
        stage.kernel.refuses_remount = True
        with pytest.raises(FsError, match="cannot remount: Device or resource busy; files are open for writing"):
            await stage.server.set("ro", "1")
        assert not store.read_only


async def test_changes_are_allowed_again_when_the_daemon_refuses_to_forbid_them(tmp_path: Path) -> None:
    async with serving(tmp_path) as stage:
        await stage.server.set("freeze", "1")
        with pytest.raises(FsError, match="frozen: thaw it first"):
            await stage.server.set("ro", "1")
        assert stage.kernel.log == ["sync", "ro=1", "ro=0"]


async def test_a_sync_waits_until_no_write_is_under_way(tmp_path: Path) -> None:
    async with serving(tmp_path) as stage:
        await make_file(stage.runtime, b"file")
        stage.kernel.writes_in_flight = 1
        over = trio.Event()

        async def sync() -> None:
            await stage.server.sync()
            over.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(sync)
            await trio.sleep(3 * serve.QUIET_SECONDS)
            assert not over.is_set()
            assert stage.runtime.store.journal.commits_total == 0
            stage.kernel.writes_in_flight = 0
            await over.wait()
        assert stage.runtime.store.journal.commits_total == 1


async def test_a_setting_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path) as stage:
        with pytest.raises(UsageError, match="cannot set nonsense=1: the keys are"):
            await stage.server.set("nonsense", "1")
        assert stage.server.statistics().image == "disk.img"
        assert (await stage.server.explain(1)).inode == 1
