"""The control protocol, with a real socket and a made-up mount."""

import dataclasses
import json
import os
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from deferfs.contract.answers import ImageIdentity, Outcome
from deferfs.contract.inode_report import InodeReport
from deferfs.contract.requests import (
    Answer,
    GetIdentity,
    GetInode,
    GetState,
    GetStatistics,
    Query,
    Set,
    Sync,
)
from deferfs.contract.statistics import SCHEMA, Statistics, encode
from deferfs.errors import ControlError, EnvironmentProblem, FsError
from deferfs.mount.control import client, paths
from deferfs.mount.control.server import ControlServer
from deferfs.mount.host.mountinfo import Mount
from tests.statistics_sample import sample
from tests.unit.contract.exchanges import EXCHANGES

LOG = {"count": 1, "total_ns": 2, "max_ns": 2, "log2_ns": {"4": 1}}
STATISTICS = sample(image="/\udcff.img", evict="deferred", waits={"log": LOG})
MOUNT = Mount("0:99", "/mnt", "fuse.deferfs", "/a.img", False, os.geteuid())


class Dance(Query[None], frozen=True, kw_only=True, tag="dance"):
    """A request that only a newer program knows."""


class DeepSync(Query[None], frozen=True, kw_only=True, tag="sync"):
    """A request with a field that only a newer program knows."""

    deep: bool = True


class FakeMount:
    def __init__(self) -> None:
        self.synced = 0
        self.closed = trio.Event()
        self.schema = SCHEMA
        self.settings: dict[str, str] = {}

    def state(self) -> str:
        return "serving"

    def identity(self) -> ImageIdentity:
        return ImageIdentity(device="8:1", inode=12, names=1, pid=99)

    async def outcome(self) -> Outcome:
        await self.closed.wait()
        return Outcome(device="8:1", inode=12, names=1, pid=99, clean=True, errors=False, problem="")

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


async def ask(request: Query[Answer]) -> Answer:
    return await trio.to_thread.run_sync(lambda: client.ask(MOUNT, request))


async def exchange(line: bytes, directory: Path) -> Any:
    """What the daemon replies to `line`, as JSON."""

    def call() -> bytes:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(str(directory / "0:99.sock"))
            connection.sendall(line)
            return connection.makefile("rb").readline()

    return json.loads(await trio.to_thread.run_sync(call))


async def test_each_request_is_answered_as_its_type_says(mount: FakeMount) -> None:
    assert await ask(GetState()) == "serving"
    assert await ask(GetStatistics()) == STATISTICS
    assert await ask(GetIdentity()) == ImageIdentity(device="8:1", inode=12, names=1, pid=99)
    await ask(Sync())
    assert mount.synced == 1
    assert await ask(Set(key="evict", value="inline")) == "inline"
    assert mount.settings == {"evict": "inline"}


async def test_an_answer_without_its_type_is_what_the_daemon_has_sent(mount: FakeMount) -> None:
    assert await trio.to_thread.run_sync(client.ask_untyped, MOUNT, GetStatistics()) == encode(STATISTICS)


@pytest.mark.parametrize("exchanged", EXCHANGES, ids=lambda exchanged: str(exchanged["request"]["command"]))
async def test_requests_of_the_released_schema_are_answered_with_its_replies(
    exchanged: dict[str, Any], mount: FakeMount, directory: Path
) -> None:
    """The wire: what programs of other versions send and read."""
    if exchanged["request"]["command"] == "outcome":
        mount.closed.set()
    reply = await exchange(json.dumps(exchanged["request"]).encode() + b"\n", directory)
    if exchanged["request"]["command"] in ("stat", "inode"):  # their keys have golden answers of their own
        assert (reply["ok"], reply["result"]["schema"]) == (True, SCHEMA)
    else:
        assert reply == exchanged["reply"]


async def test_the_client_reads_what_the_daemon_has_told(mount: FakeMount) -> None:
    assert await trio.to_thread.run_sync(client.statistics, MOUNT) == STATISTICS
    report = await ask(GetInode(number="14"))
    assert (report.inode, report.reasons) == (14, ["it is free"])
    assert await trio.to_thread.run_sync(client.image_of, MOUNT) == ("8:1", 12)


async def test_a_daemon_of_another_version_is_told_in_a_line(mount: FakeMount, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mount, "statistics", lambda: msgspec.structs.replace(STATISTICS, schema=2, version="9.9"))
    with pytest.raises(ControlError, match=r"^/mnt: its daemon is deferfs 9\.9, .* have version 2") as raised:
        await trio.to_thread.run_sync(client.statistics, MOUNT)
    assert "\n" not in str(raised.value)
    mount.schema = 2
    with pytest.raises(ControlError, match="version 2"):
        await ask(GetInode(number="14"))


async def test_a_refusal_is_an_error_with_the_mountpoint(mount: FakeMount) -> None:
    with pytest.raises(ControlError, match="/mnt: no setting 'colour'"):
        await ask(Set(key="colour", value="blue"))
    with pytest.raises(ControlError, match="/mnt: EIO"):
        await ask(Set(key="disk", value="1"))


async def test_a_daemon_that_is_older_than_the_request_says_so_in_a_line(mount: FakeMount) -> None:
    with pytest.raises(
        ControlError, match=r"^/mnt: the daemon \(deferfs .*\) does not know the request 'dance'"
    ) as raised:
        await ask(Dance())
    assert "\n" not in str(raised.value)
    with pytest.raises(
        ControlError, match=r"^/mnt: the daemon \(deferfs .*\) cannot read the request 'sync': .*`deep`"
    ):
        await ask(DeepSync())
    assert mount.synced == 0


async def test_a_bug_is_answered_and_the_mount_goes_on(mount: FakeMount) -> None:
    with pytest.raises(ControlError, match="internal error: RuntimeError: a bug"):
        await ask(Set(key="broken", value="1"))
    assert await ask(GetState()) == "serving"


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"hello\n", "not a line of JSON"),
        (b"[1]\n", "not a JSON object"),
        (b"{}\n", "does not know a request without a command"),
        (b'{"command": ["stat"]}\n', "does not know the request ['stat']"),
        (
            b'{"command": "set", "key": "evict"}\n',
            "cannot read the request 'set': Object missing required field `value`",
        ),
        (
            b'{"command": "set", "key": "evict", "value": 1}\n',
            "cannot read the request 'set': Expected `str`, got `int`",
        ),
        (b'{"command": "inode", "number": "-1"}\n', "cannot read the request 'inode'"),
        (b'{"command": "inode", "number": "' + b"9" * 5000 + b'"}\n', "cannot read the request 'inode'"),
        (b"\xff\xfe\n", "not a line of JSON"),
        (b"[" * 100_000 + b"\n", "not a line of JSON"),
    ],
)
async def test_a_malformed_request_is_refused(line: bytes, error: str, mount: FakeMount, directory: Path) -> None:
    reply = await exchange(line, directory)
    assert not reply["ok"]
    assert error in reply["error"]
    assert "\n" not in reply["error"]


@pytest.mark.parametrize(
    "said",
    [
        b"hello\n",
        b"[]\n",
        b"{}\n",
        b'{"ok": true}\n',
        b'{"ok": false}\n',
        b'{"ok": true, "result": 7}\n',
        b"[" * 100_000 + b"\n",
    ],
)
async def test_a_daemon_whose_reply_cannot_be_read_is_told_in_a_line(said: bytes, directory: Path) -> None:
    """It is older, or newer, than this program can know."""
    directory.mkdir(mode=0o700)  # noqa: ASYNC240  (nothing else runs yet)
    async with trio.open_nursery() as nursery:
        await nursery.start(answer_once, said, directory)
        with pytest.raises(ControlError, match=r"^/mnt: the daemon's answer cannot be read: ") as raised:
            await ask(GetState())
    assert "\n" not in str(raised.value)


async def test_a_daemon_that_closes_the_connection_is_told_in_a_line(directory: Path) -> None:
    """Before the request has been sent, or after: either is an error of the same kind."""
    directory.mkdir(mode=0o700)  # noqa: ASYNC240  (nothing else runs yet)
    async with trio.open_nursery() as nursery:
        await nursery.start(hang_up_at_once, directory)
        with pytest.raises(ControlError, match=r"^/mnt: the daemon (could not be asked|did not answer|hung up)"):
            await ask(GetState())


async def hang_up_at_once(directory: Path, *, task_status: trio.TaskStatus[None]) -> None:
    with trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        await listener.bind(str(directory / "0:99.sock"))
        listener.listen(1)
        task_status.started()
        connection, _ = await listener.accept()
        connection.close()


async def answer_once(said: bytes, directory: Path, *, task_status: trio.TaskStatus[None]) -> None:
    with trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        await listener.bind(str(directory / "0:99.sock"))
        listener.listen(1)
        task_status.started()
        connection, _ = await listener.accept()
        with connection:
            await connection.recv(1000)
            await trio.SocketStream(connection).send_all(said)


async def test_a_client_that_hangs_up_does_no_harm(mount: FakeMount, directory: Path) -> None:
    def hang_up() -> None:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(directory / "0:99.sock"))

    await trio.to_thread.run_sync(hang_up)
    assert await ask(GetState()) == "serving"


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


async def test_a_daemon_that_ends_leaves_the_socket_of_its_successor(directory: Path) -> None:
    """The device number belongs to another mount already. Where inode numbers are reused (ext4), the new socket file
    has that of the old one, which the end of `serve` has closed."""
    path = directory / "0:99.sock"
    first, second = (ControlServer(FakeMount(), MOUNT.device).listening() for _ in range(2))
    async with AsyncExitStack() as stack:
        async with AsyncExitStack() as earlier:
            listener = await earlier.enter_async_context(first)
            await listener.aclose()
            await stack.enter_async_context(second)
        assert path.exists()
    assert not path.exists()


def permissions(path: Path) -> int:
    return path.stat().st_mode & 0o777


def leave_a_dead_socket(directory: Path) -> None:
    directory.mkdir(mode=0o755)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(directory / "0:99.sock"))


def test_without_a_daemon_the_error_says_how_to_go_on(directory: Path) -> None:
    with pytest.raises(client.NoDaemonError, match="deferfs umount /mnt"):
        client.ask(MOUNT, GetStatistics())


async def test_a_socket_of_another_user_is_not_trusted(mount: FakeMount) -> None:
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
