"""The slow disk under real kernels: loop device, filesystems, deaths. No time is bounded from above."""

from __future__ import annotations

import errno
import mmap
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deferfs.errors import DeferfsError, EnvironmentProblem
from deferfs.measure.slow_disk import SlowDisk, SlowDiskError, kernel, missing, self_check
from deferfs.measure.slow_disk import disk as disk_module
from tests.mounted.expect import fails_with
from tests.mounted.scratch import drop_kernel_caches, run

pytestmark = pytest.mark.mounted

SIZE = 64 << 20
SECONDS_MAX = 60.0


@pytest.fixture(autouse=True)
def there_is_all_it_needs() -> None:
    assert missing() == ""


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    with path.open("xb") as file:
        file.truncate(SIZE)
    return path


class Recorded:
    """The processes that a disk has reported."""

    def __init__(self) -> None:
        self.pids: list[int] = []

    def __call__(self, pid: int) -> None:
        self.pids.append(pid)


@contextmanager
def tells(said: str, kind: type[DeferfsError] = SlowDiskError) -> Iterator[None]:
    """The block must end in this error."""
    with pytest.raises(kind, match=said):
        yield


@pytest.fixture
def own() -> Recorded:
    return Recorded()


@pytest.fixture
def mountpoint(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "mnt"
    path.mkdir()
    yield path
    while os.path.ismount(path):
        run("umount", "--lazy", path)


def is_attached(device: Path) -> bool:
    return Path(f"/sys/block/{device.name}/loop").exists()


def device_goes(device: Path) -> None:
    """The kernel detaches by itself, at its own time."""
    deadline = time.monotonic() + SECONDS_MAX
    while is_attached(device):
        assert time.monotonic() < deadline, f"{device} stays"
        time.sleep(0.01)


def process_is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def read_directly(device: Path, offsets: list[int]) -> None:
    fd = os.open(device, os.O_RDONLY | os.O_DIRECT)
    try:
        with mmap.mmap(-1, 4096) as buffer:
            for offset in offsets:
                assert os.preadv(fd, [buffer], offset) == 4096
    finally:
        os.close(fd)


@pytest.mark.parametrize("preset", ["none", "ssd", "network", "read=3,write=2,flush=5,jitter=0.2"])
def test_the_slow_disk_is_never_faster_than_stated(preset: str, tmp_path: Path, own: Recorded) -> None:
    found = self_check(preset, tmp_path, own, rounds=30)
    assert found.is_honest, "\n".join(found.lines())
    assert [one.kind for one in found.checked] == ["read", "write", "flush"]
    assert all(process_is_gone(pid) for pid in own.pids)


def test_a_rotating_disk_is_marked_as_rotational(tmp_path: Path, image: Path, own: Recorded) -> None:
    with SlowDisk(image, "hdd", tmp_path, own) as disk:
        rotational = Path(f"/sys/block/{disk.device.name}/queue/rotational")
        assert rotational.read_text() == "1\n"
        disk.set_preset("ssd")
        assert rotational.read_text() == "0\n"


def test_the_slow_disk_is_a_process_of_its_own_and_has_no_place_in_the_file_tree(
    tmp_path: Path, image: Path, own: Recorded
) -> None:
    mounts = Path("/proc/self/mountinfo").read_text()
    with SlowDisk(image, "none", tmp_path, own) as disk:
        assert own.pids == [disk.pid]
        assert Path(f"/proc/{disk.pid}/cgroup").read_text() == Path("/proc/self/cgroup").read_text()
        assert os.getsid(disk.pid) == disk.pid
        assert Path(f"/sys/block/{disk.device.name}/loop/dio").read_text() == "1\n"
        assert "deferfs-slow-disk" not in Path("/proc/self/mountinfo").read_text().replace(mounts, "")
        device = disk.device
    assert not is_attached(device)
    assert process_is_gone(own.pids[0])


def test_requests_overlap_up_to_the_number_of_servers(tmp_path: Path, image: Path, own: Recorded) -> None:
    """16 reads of 50 ms by 4 servers take 4 turns; never more than 8 are in the disk."""
    with SlowDisk(image, "read=50,depth=8,servers=4", tmp_path, own) as disk:
        read_directly(disk.device, [0])  # what opening the device reads is over
        threads = [
            threading.Thread(target=read_directly, args=(disk.device, [number << 20])) for number in range(1, 17)
        ]
        start = time.monotonic_ns()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert time.monotonic_ns() - start >= 4 * 50_000_000
        assert 1 < disk.counters()["queue_max"] <= 8


@pytest.mark.machine
@pytest.mark.needs("mkfs.ext4", "e2fsck")
def test_a_filesystem_keeps_what_is_written_and_only_cold_reads_cost(
    tmp_path: Path, image: Path, own: Recorded, mountpoint: Path
) -> None:
    contents = {f"file{number}": os.urandom(200_000) for number in range(20)}
    with SlowDisk(image, "none", tmp_path, own) as disk:
        run("mkfs.ext4", "-q", "-F", disk.device)
        disk.set_preset("read=1,write=1,flush=3")
        run("mount", disk.device, mountpoint)
        for name, content in contents.items():
            (mountpoint / name).write_bytes(content)
        os.sync()
        assert disk.counters()["flushes"] > 0
        for name, content in contents.items():
            assert (mountpoint / name).read_bytes() == content
        warm = disk.counters()
        run("umount", mountpoint)
        drop_kernel_caches()
        run("mount", disk.device, mountpoint)
        for name, content in contents.items():
            assert (mountpoint / name).read_bytes() == content
        assert disk.counters()["read_bytes"] - warm["read_bytes"] >= sum(map(len, contents.values()))
        run("umount", mountpoint)
    run("e2fsck", "-f", "-n", image)
    with SlowDisk(image, "none", tmp_path, own) as disk:
        run("mount", "-o", "ro", disk.device, mountpoint)
        for name, content in contents.items():
            assert (mountpoint / name).read_bytes() == content
        run("umount", mountpoint)


@pytest.mark.needs("mkfs.ext4")
def test_a_killed_server_gives_errors_and_no_hang(tmp_path: Path, image: Path, own: Recorded, mountpoint: Path) -> None:
    with tells("gone: ended by signal 9"), SlowDisk(image, "none", tmp_path, own) as disk:
        device = disk.device
        run("mkfs.ext4", "-q", "-F", device)
        run("mount", device, mountpoint)
        (mountpoint / "file").write_bytes(bytes(100_000))
        disk.set_preset("write=200,flush=200,servers=1")
        fd = os.open(mountpoint / "file", os.O_RDWR)
        try:
            os.pwrite(fd, b"x" * 50_000, 0)
            killer = threading.Timer(0.05, os.kill, (disk.pid, signal.SIGKILL))
            killer.start()
            with fails_with(errno.EIO, errno.EROFS):
                for _ in range(1000):  # minutes, did it live
                    os.pwrite(fd, b"x" * 50_000, 0)
                    os.fsync(fd)
        finally:
            os.close(fd)
        killer.join()
        with tells("ended by signal 9"):
            disk.counters()
        run("umount", mountpoint, code=None)
    assert not os.path.ismount(mountpoint)
    device_goes(device)
    assert process_is_gone(own.pids[0])


@pytest.mark.needs("mkfs.ext4")
def test_a_device_that_is_still_mounted_goes_with_its_mount(
    tmp_path: Path, image: Path, own: Recorded, mountpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_module, "DETACH_SECONDS_MAX", 0.2)
    with tells("is still in use"), SlowDisk(image, "none", tmp_path, own) as disk:
        device = disk.device
        run("mkfs.ext4", "-q", "-F", device)
        run("mount", device, mountpoint)
    assert process_is_gone(own.pids[0])
    assert is_attached(device)
    with fails_with(errno.EIO):
        read_directly(device, [4 << 20])
    run("umount", mountpoint, code=None)
    assert not os.path.ismount(mountpoint)
    device_goes(device)


def test_the_first_error_is_the_one_that_is_reported(tmp_path: Path, image: Path, own: Recorded) -> None:
    def fail() -> None:
        with SlowDisk(image, "read=1", tmp_path, own) as disk:
            os.kill(disk.pid, signal.SIGKILL)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert process_is_gone(own.pids[0])


def failing(code: int) -> Callable[..., object]:
    def fail(*arguments: object) -> object:
        raise OSError(code, os.strerror(code))

    return fail


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("fuse_mount", "cannot be mounted here: No such device"),
        ("attach_loop", "needs a loop device: No such device"),
        ("set_rotational", ""),
    ],
)
def test_a_start_that_fails_leaves_nothing(
    tmp_path: Path, image: Path, own: Recorded, monkeypatch: pytest.MonkeyPatch, call: str, said: str
) -> None:
    descriptors = set(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(kernel, call, failing(errno.ENODEV))
    if said:
        with tells(said, EnvironmentProblem), SlowDisk(image, "none", tmp_path, own):
            pass
    else:
        with SlowDisk(image, "none", tmp_path, own):
            pass
    assert set(os.listdir("/proc/self/fd")) == descriptors
    assert all(process_is_gone(pid) for pid in own.pids)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image"]


def test_a_server_that_cannot_start_is_reported(
    tmp_path: Path, image: Path, own: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with (
        pytest.raises(SlowDiskError, match="cannot be served: ended with code 1"),
        SlowDisk(image, "none", tmp_path, own),
    ):
        pass
    assert all(process_is_gone(pid) for pid in own.pids)


HOLDER = """
import sys, time
from pathlib import Path
from deferfs.measure.slow_disk import SlowDisk
image, scratch = map(Path, sys.argv[1:])
with SlowDisk(image, "read=1", scratch, lambda pid: print(pid, flush=True)) as disk:
    print(disk.device, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_the_slow_disk_goes_with_its_process(tmp_path: Path, image: Path, number: signal.Signals) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(image), str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with holder:
        assert holder.stdout is not None
        server = os.pidfd_open(int(holder.stdout.readline()))
        try:
            device = Path(holder.stdout.readline().strip())
            read_directly(device, [0])
            holder.send_signal(number)
            assert select.select([server], [], [], SECONDS_MAX)[0]
        finally:
            os.close(server)
    device_goes(device)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image"]
