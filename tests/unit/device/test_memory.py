import errno

import pytest

from deferfs.device import MemoryDevice
from deferfs.errors import DeviceError


def test_from_bytes_copies_and_snapshot_copies_back() -> None:
    image = bytearray(b"original")
    device = MemoryDevice.from_bytes(image)
    image[0:1] = b"X"
    before = device.snapshot()
    device.write(0, b"later")
    assert before == b"original"
    assert device.snapshot() == b"laternal"


def test_a_read_only_device_refuses_every_change() -> None:
    device = MemoryDevice.from_bytes(b"fixed", writable=False)
    with pytest.raises(DeviceError) as caught:
        device.write(0, b"x")
    assert caught.value.errno == errno.EROFS
    with pytest.raises(DeviceError):
        device.writev(0, [b"x"])
    with pytest.raises(DeviceError):
        device.discard(0, 1)
    assert device.snapshot() == b"fixed"


def test_messages_can_name_the_device() -> None:
    device = MemoryDevice(16, name="scratch")
    with pytest.raises(DeviceError, match=r"16 bytes.*'scratch'"):
        device.read(16, 1)


def test_reads_never_block() -> None:
    assert MemoryDevice.from_bytes(b"abc").read_nowait(1, 2) == b"bc"
