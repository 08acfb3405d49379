import errno
import fcntl
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from deferfs.device import Buffer, FileDevice
from deferfs.errors import DeviceError, ImageError, ImageInUseError

SIZE = 1 << 20


@pytest.fixture
def path(tmp_path: Path) -> str:
    image = tmp_path / "image"
    image.touch()
    os.truncate(image, SIZE)
    return str(image)


def test_data_is_there_when_the_device_is_opened_again(path: str) -> None:
    device = FileDevice.open(path, writable=True)
    device.write(SIZE - 3, b"end")
    device.flush()
    device.close()
    again = FileDevice.open(path, writable=False)
    assert (again.name, again.size, again.writable) == (path, SIZE, False)
    assert again.read(SIZE - 3, 3) == b"end"
    again.close()


def test_a_read_only_opening_refuses_every_change(path: str) -> None:
    device = FileDevice.open(path, writable=False)
    requests: list[Callable[[], None]] = [
        lambda: device.write(0, b"x"),
        lambda: device.writev(0, [b"x"]),
        lambda: device.discard(0, 1),
        lambda: device.resize(0),
    ]
    for request in requests:
        with pytest.raises(DeviceError) as caught:
            request()
        assert caught.value.errno == errno.EROFS
    device.close()


def test_a_writer_excludes_everybody(path: str) -> None:
    device = FileDevice.open(path, writable=True)
    for writable in (True, False):
        with pytest.raises(ImageInUseError, match=path):
            FileDevice.open(path, writable=writable)
    device.close()
    FileDevice.open(path, writable=True).close()


def test_readers_share_and_exclude_writers(path: str) -> None:
    first = FileDevice.open(path, writable=False)
    second = FileDevice.open(path, writable=False)
    with pytest.raises(ImageInUseError):
        FileDevice.open(path, writable=True)
    first.close()
    second.close()
    FileDevice.open(path, writable=True).close()


def test_without_a_lock_a_held_image_can_be_looked_at(path: str) -> None:
    device = FileDevice.open(path, writable=True)
    onlooker = FileDevice.open(path, writable=False, lock=False)
    device.write(0, b"seen")
    assert onlooker.read(0, 4) == b"seen"
    onlooker.close()
    device.close()


def test_create_makes_a_sparse_file_and_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "new"
    device = FileDevice.create(str(path), 1 << 30)
    assert (device.size, device.writable) == (1 << 30, True)
    assert path.stat().st_blocks == 0
    with pytest.raises(ImageInUseError):
        FileDevice.open(str(path), writable=True)
    device.close()


def test_only_its_owner_may_read_a_new_image(tmp_path: Path) -> None:
    path = tmp_path / "new"
    before = os.umask(0)
    try:
        FileDevice.create(str(path), SIZE).close()
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_size_that_the_filesystem_below_does_not_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def truncate(fd: int, size: int) -> None:
        raise OSError(errno.EFBIG, "File too large")

    monkeypatch.setattr(os, "ftruncate", truncate)
    with pytest.raises(
        ImageError, match="17592186044416 bytes: more than a file of the filesystem that it is on can have"
    ):
        FileDevice.create(str(tmp_path / "new"), 16 << 40)
    assert os.listdir(tmp_path) == []


def test_create_never_touches_what_exists(path: str) -> None:
    with pytest.raises(ImageError, match="exists"):
        FileDevice.create(path, 1)
    assert os.path.getsize(path) == SIZE


def test_create_leaves_nothing_behind_when_the_size_is_impossible(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="9223372036854775807"):
        FileDevice.create(str(tmp_path / "new"), 2**63 - 1)
    assert list(tmp_path.iterdir()) == []


def test_resize_grows_with_zeros(path: str) -> None:
    device = FileDevice.open(path, writable=True)
    device.resize(2 * SIZE)
    assert device.size == 2 * SIZE
    assert device.read(SIZE, SIZE) == bytes(SIZE)
    device.close()


def test_a_file_that_is_no_image_gets_one_clear_line(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for name, words in (("", "is a directory"), ("fifo", "special file"), ("none", "No such file")):
        path = str(tmp_path / name)
        with pytest.raises(ImageError, match=words) as caught:
            FileDevice.open(path, writable=True)
        assert path in str(caught.value)
        assert "\n" not in str(caught.value)


def test_an_image_that_shrinks_while_open_gives_eio(path: str) -> None:
    device = FileDevice.open(path, writable=False)
    os.truncate(path, 5000)
    with pytest.raises(DeviceError, match="shrunk to 5000 bytes") as caught:
        device.read(4096, 4096)
    assert caught.value.errno == errno.EIO
    device.close()


def test_discard_gives_space_back(path: str) -> None:
    device = FileDevice.open(path, writable=True)
    device.write(0, b"x" * SIZE)
    device.flush()
    before = os.stat(path).st_blocks
    device.discard(0, SIZE)
    assert device.size == SIZE
    if device.read(0, 1) == b"\0":
        assert os.stat(path).st_blocks < before
    device.close()


def test_short_reads_and_writes_are_continued(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real_pread, real_pwrite, real_pwritev = os.pread, os.pwrite, os.pwritev

    def short_pread(fd: int, length: int, offset: int) -> bytes:
        return real_pread(fd, min(length, 3), offset)

    def short_pwrite(fd: int, data: Buffer, offset: int) -> int:
        return real_pwrite(fd, memoryview(data)[:2], offset)

    def short_pwritev(fd: int, buffers: Sequence[Buffer], offset: int) -> int:
        return real_pwritev(fd, buffers[:1], offset)

    device = FileDevice.open(path, writable=True)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", short_pread)
        patch.setattr(os, "pwrite", short_pwrite)
        patch.setattr(os, "pwritev", short_pwritev)
        device.write(10, b"abcdefg")
        device.writev(20, [b"hij", b"klmno", b"p"])
        assert device.read(10, 20) == b"abcdefg\0\0\0hijklmnop\0"
    device.close()


def test_more_buffers_than_one_call_takes(path: str) -> None:
    buffers = [bytes([n % 251]) * 3 for n in range(3000)]
    device = FileDevice.open(path, writable=True)
    device.writev(7, buffers)
    assert device.read(7, 9000) == b"".join(buffers)
    device.close()


def test_errors_of_the_system_keep_their_errno(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(fd: int, data: Buffer, offset: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    device = FileDevice.open(path, writable=True)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", no_space)
        with pytest.raises(DeviceError, match="write: No space") as caught:
            device.write(0, b"x")
    assert caught.value.errno == errno.ENOSPC
    device.close()


def test_after_a_failed_flush_every_flush_fails(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    device = FileDevice.open(path, writable=True)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", broken)
        with pytest.raises(DeviceError, match="flush"):
            device.flush()
    with pytest.raises(DeviceError, match="earlier flush"):
        device.flush()
    device.close()


@pytest.mark.parametrize("code", [errno.EAGAIN, errno.EOPNOTSUPP, errno.EIO])
def test_read_nowait_gives_none_when_it_cannot_answer_at_once(
    path: str, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    calls = []

    def refuse(fd: int, buffers: Sequence[bytearray], offset: int, flags: int) -> int:
        calls.append(flags)
        raise OSError(code, os.strerror(code))

    device = FileDevice.open(path, writable=False)
    with monkeypatch.context() as patch:
        patch.setattr(os, "preadv", refuse)
        assert device.read_nowait(0, 10) is None
        assert device.read_nowait(0, 10) is None
    unsupported = code == errno.EOPNOTSUPP
    assert len(calls) == (1 if unsupported else 2)
    assert device.read(0, 10) == bytes(10)
    device.close()


def test_read_nowait_answers_on_tmpfs_even_without_rwf_nowait() -> None:
    if not os.access("/dev/shm", os.W_OK) or "/dev/shm tmpfs" not in Path("/proc/mounts").read_text():
        pytest.skip("needs a tmpfs on /dev/shm")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        device = FileDevice.create(f"{directory}/image", SIZE)
        device.write(3, b"memory")
        device.read_nowait(0, 10)  # finds out what the kernel knows
        assert device.read_nowait(3, 6) == b"memory"
        device.close()


def test_read_nowait_does_not_give_half_an_answer(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    device = FileDevice.open(path, writable=False)
    with monkeypatch.context() as patch:
        patch.setattr(os, "preadv", lambda fd, buffers, offset, flags: 4)
        assert device.read_nowait(0, 10) is None
    device.close()


@pytest.fixture
def loop(path: str) -> Iterator[str]:
    """A block device on the image, by the loop driver."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to attach a loop device")
    attach = subprocess.run(["losetup", "--find", "--show", path], capture_output=True, text=True, check=False)
    if attach.returncode != 0:
        pytest.skip(f"no loop device: {attach.stderr.strip()}")
    name = attach.stdout.strip()
    yield name
    subprocess.run(["losetup", "--detach", name], check=True)


def test_a_block_device_is_read_written_flushed_and_discarded(loop: str) -> None:
    device = FileDevice.open(loop, writable=True)
    assert device.size == SIZE
    device.write(4095, b"block")
    device.flush()
    device.discard(8192, 4096)
    assert device.read(4095, 5) == b"block"
    with pytest.raises(DeviceError):
        device.resize(2 * SIZE)
    device.close()


def test_a_block_device_has_one_writer_or_many_readers(loop: str) -> None:
    writer = FileDevice.open(loop, writable=True)
    for writable in (True, False):
        with pytest.raises(ImageInUseError, match=loop):
            FileDevice.open(loop, writable=writable)
    writer.close()
    readers = [FileDevice.open(loop, writable=False) for _ in range(2)]
    with pytest.raises(ImageInUseError):
        FileDevice.open(loop, writable=True)
    for reader in readers:
        reader.close()


def test_a_file_and_a_loop_device_over_it_are_one_image(loop: str, path: str) -> None:
    file = FileDevice.open(path, writable=True)
    for writable in (True, False):
        with pytest.raises(ImageInUseError, match=loop):
            FileDevice.open(loop, writable=writable)
    file.close()
    device = FileDevice.open(loop, writable=True)
    for writable in (True, False):
        with pytest.raises(ImageInUseError, match=path):
            FileDevice.open(path, writable=writable)
    device.close()
    readers = [FileDevice.open(name, writable=False) for name in (loop, path)]
    for name in (loop, path):
        with pytest.raises(ImageInUseError):
            FileDevice.open(name, writable=True)
    for reader in readers:
        reader.close()
    FileDevice.open(path, writable=True).close()


def test_a_loop_device_that_a_kernel_filesystem_may_have_is_found(loop: str, path: str) -> None:
    claim = os.open(loop, os.O_RDONLY | os.O_EXCL)  # as a mount of it does
    with pytest.raises(ImageInUseError, match=f"{loop}, a loop device over it"):
        FileDevice.open(path, writable=True)
    os.close(claim)


def test_a_file_behind_a_loop_device_that_has_no_name_any_more(loop: str, path: str) -> None:
    file = os.open(path, os.O_RDWR)
    fcntl.flock(file, fcntl.LOCK_EX)
    os.unlink(path)
    with pytest.raises(ImageInUseError, match="behind it"):
        FileDevice.open(loop, writable=True)
    os.close(file)
    FileDevice.open(loop, writable=True).close()


def test_two_parts_of_a_file_are_two_images(path: str, loop: str) -> None:
    def attach(offset: int) -> str:
        words = ["losetup", "--find", "--show", "--offset", str(offset), "--sizelimit", str(SIZE // 2), path]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()

    halves = [attach(0), attach(SIZE // 2)]
    try:
        devices = [FileDevice.open(half, writable=True) for half in halves]
        with pytest.raises(ImageInUseError):
            FileDevice.open(loop, writable=True)
        for device in devices:
            device.close()
    finally:
        for half in halves:
            subprocess.run(["losetup", "--detach", half], check=True)
