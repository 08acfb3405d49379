"""The device whose writes stay in memory."""

from __future__ import annotations

import pytest

from deferfs.device import FailingDevice, Fault, MemoryDevice, OverlayDevice, Request
from deferfs.errors import DeviceError


def devices() -> tuple[MemoryDevice, OverlayDevice]:
    inner = MemoryDevice.from_bytes(bytes(range(64)) * 4)
    return inner, OverlayDevice(inner, 16)


def test_writes_are_read_back_and_stay_above() -> None:
    inner, overlay = devices()
    before = inner.snapshot()
    overlay.write(10, b"x" * 20)
    overlay.writev(100, [b"a", b"bc"])
    expected = bytearray(before)
    expected[10:30] = b"x" * 20
    expected[100:103] = b"abc"
    assert overlay.read(0, 256) == bytes(expected)
    for offset in range(0, 120, 7):
        assert overlay.read(offset, 23) == bytes(expected[offset : offset + 23])
    assert inner.snapshot() == before
    assert sorted(overlay.pages) == [0, 1, 6]
    overlay.flush()
    overlay.discard(0, 16)
    assert overlay.read(10, 4) == b"xxxx"


def test_written_bytes_are_read_where_the_device_cannot() -> None:
    inner, _ = devices()
    fault = Fault(frozenset([Request.READ]), sticky=True, start=32, stop=48)
    overlay = OverlayDevice(FailingDevice(inner, fault), 16)
    overlay.write(32, b"y" * 16)
    assert overlay.read(30, 4) == inner.read(30, 2) + b"yy"
    overlay.write(64, b"z")
    with pytest.raises(DeviceError):
        OverlayDevice(FailingDevice(inner, fault), 16).read(32, 1)


def test_a_bound_on_what_may_change() -> None:
    inner, _ = devices()
    overlay = OverlayDevice(inner, 16, 32)
    overlay.write(8, b"x" * 16)
    overlay.write(0, b"y" * 32)
    with pytest.raises(DeviceError, match="more than 32 bytes would change"):
        overlay.write(100, b"z")
    assert overlay.read(0, 40) == b"y" * 32 + inner.read(32, 8)


def test_outside() -> None:
    _, overlay = devices()
    with pytest.raises(DeviceError):
        overlay.write(250, b"x" * 7)
    overlay.write(250, b"x" * 6)
    with pytest.raises(DeviceError):
        overlay.read(250, 7)


def test_a_device_that_cannot_be_written_can_be_written_above() -> None:
    inner = MemoryDevice.from_bytes(bytes(64), name="below", writable=False)
    overlay = OverlayDevice(inner, 16)
    assert (overlay.name, overlay.size, overlay.writable) == ("below", 64, True)
    overlay.write(3, b"x")
    assert overlay.read_nowait(0, 5) == b"\0\0\0x\0"
    overlay.discard(0, 64)
    assert inner.snapshot() == bytes(64)
