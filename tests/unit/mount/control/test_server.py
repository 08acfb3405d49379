"""The control protocol, with a real socket and a made-up mount."""

import dataclasses
import json
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import trio

from deferfs.contract.answers import ImageIdentity, Outcome
from deferfs.contract.inode_report import InodeReport
from deferfs.contract.statistics import SCHEMA, Statistics, encode
from deferfs.errors import ControlError, EnvironmentProblem, FsError
from deferfs.mount.control import client, paths
from deferfs.mount.control.server import ControlServer
from deferfs.mount.host.mountinfo import Mount
from tests.statistics_sample import sample

LOG = {"count": 1, "total_ns": 2, "max_ns": 2, "log2_ns": {"4": 1}}
STATISTICS = sample(image="/\udcff.img", evict="deferred", waits={"log": LOG})
MOUNT = Mount("0:99", "/mnt", "fuse.deferfs", "/a.img", False, os.geteuid())


class FakeMount:
    def __init__(self) -> None:
        self.synced = 0
        self.schema = SCHEMA
        self.settings: dict[str, str] = {}

    def state(self) -> str:
        return "serving"

    def identity(self) -> ImageIdentity:
        return ImageIdentity(device="8:1", inode=12, names=1, pid=99)

    async def outcome(self) -> Outcome:
        await trio.sleep_forever()
        raise AssertionError

    def statistics(self) -> Statistics:
        return STATISTICS

    async def explain(self, ino: int) -> InodeReport:
        return InodeReport(schema=self.schema, inode=ino, record=None, memory=None, reasons=["it is free"])

    async def sync(self) -> None:
        self.synced += 1

    async def set(self, key: str, value: str) -> str:
        if key == "evict":
            self.settings[key] = value
            return value
        if key == "broken":
            raise RuntimeError("a bug")
        if key == "disk":
            raise FsError(5)
        raise ControlError(f"no setting {key!r}")


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "run"
    monkeypatch.setattr(paths, "control_directories", lambda uid: [str(place)])
    return place


@pytest.fixture
async def mount(directory: Path) -> AsyncIterator[FakeMount]:
    fake = FakeMount()
    server = ControlServer(fake, MOUNT.device)
    async with server.listening() as listener, trio.open_nursery() as nursery:
        nursery.start_soon(server.serve, listener)
        yield fake
        nursery.cancel_scope.cancel()


async def ask(command: str, **arguments: str) -> object:
    return await trio.to_thread.run_sync(lambda: client.ask(MOUNT, command, **arguments))


async def test_the_commands(mount: FakeMount) -> None:
    assert await ask("state") == "serving"
    assert await ask("stat") == encode(STATISTICS)
    assert await ask("identity") == {"device": "8:1", "inode": 12, "names": 1, "pid": 99}
    assert await ask("sync") is None
    assert mount.synced == 1
    assert await ask("set", key="evict", value="inline") == "inline"
    assert mount.settings == {"evict": "inline"}


async def test_the_client_reads_what_the_daemon_has_told(mount: FakeMount) -> None:
    assert await trio.to_thread.run_sync(client.statistics, MOUNT) == STATISTICS
    report = await trio.to_thread.run_sync(client.explain, MOUNT, 14)
    assert (report.inode, report.reasons) == (14, ["it is free"])
    assert await trio.to_thread.run_sync(client.image_of, MOUNT) == ("8:1", 12)


async def test_a_daemon_of_another_version_is_told_in_a_line(mount: FakeMount, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mount, "statistics", lambda: msgspec.structs.replace(STATISTICS, schema=2, version="9.9"))
    with pytest.raises(ControlError, match=r"^/mnt: its daemon is deferfs 9\.9, .* have version 2") as raised:
        await trio.to_thread.run_sync(client.statistics, MOUNT)
    assert "\n" not in str(raised.value)
    mount.schema = 2
    with pytest.raises(ControlError, match="version 2"):
        await trio.to_thread.run_sync(client.explain, MOUNT, 14)


async def test_a_refusal_is_an_error_with_the_mountpoint(mount: FakeMount) -> None:
    with pytest.raises(ControlError, match="/mnt: no setting 'colour'"):
        await ask("set", key="colour", value="blue")
    with pytest.raises(ControlError, match="/mnt: EIO"):
        await ask("set", key="disk", value="1")
    with pytest.raises(ControlError, match="does not know the request 'dance'"):
        await ask("dance")
    with pytest.raises(ControlError, match="does not know the request 'set'"):
        await ask("set", key="evict")


async def test_a_bug_is_answered_and_the_mount_goes_on(mount: FakeMount) -> None:
    with pytest.raises(ControlError, match="internal error: RuntimeError: a bug"):
        await ask("set", key="broken", value="1")
    assert await ask("state") == "serving"


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"hello\n", "not a line of JSON"),
        (b"[1]\n", "not a JSON object"),
        (b"{}\n", "does not know the request None"),
        (b"\xff\xfe\n", "not a line of JSON"),
        (b"[" * 100_000 + b"\n", "not a line of JSON"),
    ],
)
async def test_a_malformed_request_is_refused(line: bytes, error: str, mount: FakeMount, directory: Path) -> None:
    def exchange() -> bytes:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            client.connect(str(directory / "0:99.sock"))
            client.sendall(line)
            return client.makefile("rb").readline()

    answer = json.loads(await trio.to_thread.run_sync(exchange))
    assert not answer["ok"]
    assert error in answer["error"]


async def test_a_client_that_hangs_up_does_no_harm(mount: FakeMount, directory: Path) -> None:
    def hang_up() -> None:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(directory / "0:99.sock"))

    await trio.to_thread.run_sync(hang_up)
    assert await ask("state") == "serving"


async def test_the_daemon_is_known_by_the_kernel_not_by_what_it_says(mount: FakeMount) -> None:
    daemon = await trio.to_thread.run_sync(client.find_daemon, MOUNT)
    assert daemon.pid == os.getpid()


async def test_only_the_owner_gets_near_the_socket(mount: FakeMount, directory: Path) -> None:
    assert permissions(directory) == 0o700
    assert permissions(directory / "0:99.sock") == 0o600


async def test_the_socket_of_a_dead_daemon_is_replaced(directory: Path) -> None:
    leave_a_dead_socket(directory)
    server = ControlServer(FakeMount(), MOUNT.device)
    async with server.listening():
        assert permissions(directory) == 0o700
    assert os.listdir(directory) == []


def permissions(path: Path) -> int:
    return path.stat().st_mode & 0o777


def leave_a_dead_socket(directory: Path) -> None:
    directory.mkdir(mode=0o755)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(directory / "0:99.sock"))


def test_without_a_daemon_the_error_says_how_to_go_on(directory: Path) -> None:
    with pytest.raises(client.NoDaemonError, match="deferfs umount /mnt"):
        client.ask(MOUNT, "stat")


async def test_a_socket_of_somebody_else_is_not_trusted(mount: FakeMount) -> None:
    others = dataclasses.replace(MOUNT, uid=os.geteuid() + 1)
    with pytest.raises(client.NoDaemonError):
        await trio.to_thread.run_sync(client.find_daemon, others)


def test_a_path_that_is_not_on_a_deferfs(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match="no deferfs is mounted here"):
        client.find_mount(str(tmp_path))


def test_a_directory_with_too_long_a_name_for_a_socket_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directories = [str(tmp_path / ("x" * 100)), str(tmp_path / "run")]
    monkeypatch.setattr(paths, "control_directories", lambda uid: directories)
    assert paths.make_control_path("0:99") == f"{tmp_path}/run/0:99.sock"
    assert not Path(directories[0]).exists()
    directories.pop()
    with pytest.raises(EnvironmentProblem, match="path too long for the control socket"):
        paths.make_control_path("0:99")
