import errno
from collections.abc import Callable

import pytest

from deferfs.device import (
    DiscardRecord,
    FailedFlushRecord,
    FailingDevice,
    Fault,
    FlushRecord,
    MarkRecord,
    MemoryDevice,
    RecordingDevice,
    Request,
    WriteRecord,
)
from deferfs.errors import DeviceError


def test_the_log_holds_every_change_in_order_and_byte_for_byte() -> None:
    device = RecordingDevice(MemoryDevice(4096))
    device.write(1, b"one")
    device.writev(10, [b"two", b"three"])
    device.read(0, 4096)
    device.flush()
    device.discard(0, 512)
    assert list(device.records) == [
        WriteRecord(1, b"one"),
        WriteRecord(10, b"twothree"),
        FlushRecord(),
        DiscardRecord(0, 512),
    ]


def test_the_log_keeps_the_bytes_of_the_time_of_writing() -> None:
    device = RecordingDevice(MemoryDevice(16))
    data = bytearray(b"then")
    device.write(0, data)
    data[:] = b"now!"
    assert device.records[0] == WriteRecord(0, b"then")


def test_replaying_the_log_gives_the_device() -> None:
    inner = MemoryDevice(64)
    device = RecordingDevice(inner)
    for n in range(20):
        device.write(n * 3, bytes([n]) * 5)
    replica = MemoryDevice(64)
    for record in device.records:
        assert isinstance(record, WriteRecord)
        replica.write(record.offset, record.data)
    assert replica.snapshot() == inner.snapshot()


def test_marks_name_places_in_the_log() -> None:
    device = RecordingDevice(MemoryDevice(16))
    device.write(0, b"a")
    assert device.mark("first") == 1
    device.write(0, b"b")
    assert device.mark("first") == 3
    assert device.position("first") == 3
    assert device.records[1] == MarkRecord("first")
    with pytest.raises(KeyError):
        device.position("second")


def test_failed_requests_are_not_recorded_except_flushes() -> None:
    everything = frozenset(Request)
    device = RecordingDevice(FailingDevice(MemoryDevice(16), Fault(everything, sticky=True)))
    requests: list[Callable[[], None]] = [
        lambda: device.write(0, b"a"),
        device.flush,
        lambda: device.discard(0, 1),
    ]
    for request in requests:
        with pytest.raises(DeviceError) as caught:
            request()
        assert caught.value.errno == errno.EIO
    assert list(device.records) == [FailedFlushRecord()]


def test_clear_starts_a_new_log() -> None:
    device = RecordingDevice(MemoryDevice(16))
    device.write(0, b"a")
    device.clear()
    device.flush()
    assert list(device.records) == [FlushRecord()]
