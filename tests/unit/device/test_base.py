"""What all devices have in common, checked on each of them."""

import errno
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deferfs.device import (
    DelayingDevice,
    Delays,
    Device,
    FailingDevice,
    FileDevice,
    MemoryDevice,
    RecordingDevice,
    TearingDevice,
)
from deferfs.errors import DeviceError

SIZE = 8192


def never(seconds: float) -> None:
    raise AssertionError("nothing was to be delayed")


def file_device(directory: str) -> Device:
    return FileDevice.create(f"{directory}/image", SIZE)


MAKERS: dict[str, Callable[[str], Device]] = {
    "file": file_device,
    "memory": lambda _: MemoryDevice(SIZE),
    "record": lambda _: RecordingDevice(MemoryDevice(SIZE)),
    "delay": lambda _: DelayingDevice(MemoryDevice(SIZE), never, Delays()),
    "fail": lambda _: FailingDevice(MemoryDevice(SIZE)),
    "tear": lambda _: TearingDevice(MemoryDevice(SIZE)),
    "wrapped file": lambda directory: RecordingDevice(TearingDevice(file_device(directory))),
}

every_device = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


@pytest.fixture(params=MAKERS.values(), ids=list(MAKERS))
def device(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Device]:
    made: Device = request.param(str(tmp_path))
    yield made
    made.close()


def test_a_fresh_device_reads_as_zeros(device: Device) -> None:
    assert device.size == SIZE
    assert device.writable
    assert device.read(0, SIZE) == bytes(SIZE)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_can_be_written_at_any_offset(device: Device, kind: Callable[[bytes], bytes]) -> None:
    device.write(1021, kind(b"across a sector"))
    assert device.read(1020, 17) == b"\0across a sector\0"


def test_writev_writes_its_buffers_one_after_the_other(device: Device) -> None:
    device.writev(100, [b"one", bytearray(b"two"), memoryview(b"three"), b""])
    assert device.read(99, 13) == b"\0onetwothree\0"


def test_writes_survive_a_flush(device: Device) -> None:
    device.write(0, b"kept")
    device.flush()
    assert device.read(0, 4) == b"kept"


def test_read_nowait_gives_the_same_bytes_or_none(device: Device) -> None:
    device.write(500, b"here")
    assert device.read_nowait(500, 4) in (b"here", None)


def test_a_discarded_range_reads_as_zeros_or_as_before(device: Device) -> None:
    device.write(0, b"x" * SIZE)
    device.discard(4096, 4096)
    assert device.read(0, 4096) == b"x" * 4096
    assert device.read(4096, 4096) in (bytes(4096), b"x" * 4096)


@pytest.mark.parametrize(("offset", "length"), [(SIZE, 1), (SIZE - 1, 2), (-1, 1), (0, SIZE + 1)])
def test_a_request_outside_of_the_device_is_refused(device: Device, offset: int, length: int) -> None:
    requests: list[Callable[[], object]] = [
        lambda: device.read(offset, length),
        lambda: device.write(offset, bytes(length)),
        lambda: device.writev(offset, [bytes(length)]),
        lambda: device.discard(offset, length),
    ]
    for request in requests:
        with pytest.raises(DeviceError) as caught:
            request()
        assert caught.value.errno == errno.EIO
        assert caught.value.filename == device.name
    assert device.size == SIZE
    assert device.read(0, SIZE) == bytes(SIZE)


def test_empty_requests_do_nothing(device: Device) -> None:
    device.write(SIZE, b"")
    device.writev(0, [])
    device.discard(0, 0)
    assert device.read(SIZE, 0) == b""


def test_close_can_be_called_twice(device: Device) -> None:
    device.close()
    device.close()  # raises nothing


writes = st.lists(st.tuples(st.integers(0, SIZE - 64), st.binary(max_size=64)), max_size=20)


@every_device
@given(writes=writes)
def test_a_device_reads_back_what_a_bytearray_would(
    make: Callable[[str], Device], writes: list[tuple[int, bytes]]
) -> None:
    model = bytearray(SIZE)
    with tempfile.TemporaryDirectory() as directory:
        device = make(directory)
        for offset, data in writes:
            device.write(offset, data)
            model[offset : offset + len(data)] = data
        assert device.read(0, SIZE) == model
        device.close()
