import errno

import pytest

from deferfs.device import FailingDevice, Fault, MemoryDevice, Request
from deferfs.errors import DeviceError

WRITES = frozenset({Request.WRITE})


def outcomes(device: FailingDevice, count: int, offset: int = 0) -> list[bool]:
    """Whether each of `count` writes succeeded."""
    result = []
    for _ in range(count):
        try:
            device.write(offset, b"x")
        except DeviceError:
            result.append(False)
        else:
            result.append(True)
    return result


def test_one_request_fails_after_those_to_skip() -> None:
    device = FailingDevice(MemoryDevice(16), Fault(WRITES, skip=2))
    assert outcomes(device, 5) == [True, True, False, True, True]
    assert device.failures == 1


def test_a_sticky_fault_stays() -> None:
    device = FailingDevice(MemoryDevice(16), Fault(WRITES, skip=1, sticky=True))
    assert outcomes(device, 4) == [True, False, False, False]
    device.heal()
    assert outcomes(device, 1) == [True]


def test_a_fault_hits_only_its_kinds_of_requests() -> None:
    device = FailingDevice(MemoryDevice(16), Fault(frozenset({Request.FLUSH, Request.READ}), sticky=True))
    device.write(0, b"x")
    device.discard(0, 1)
    with pytest.raises(DeviceError, match=r"flush.*injected"):
        device.flush()
    with pytest.raises(DeviceError, match=r"read.*injected"):
        device.read(0, 1)


@pytest.mark.parametrize(
    ("offset", "length", "fails"),
    [(0, 8, False), (0, 9, True), (8, 1, True), (11, 4, True), (12, 4, False)],
)
def test_a_fault_hits_only_its_range(offset: int, length: int, fails: bool) -> None:
    device = FailingDevice(MemoryDevice(16), Fault(WRITES, sticky=True, start=8, stop=12))
    if fails:
        with pytest.raises(DeviceError):
            device.write(offset, bytes(length))
    else:
        device.write(offset, bytes(length))


def test_a_failed_write_has_changed_nothing_and_has_the_chosen_errno() -> None:
    inner = MemoryDevice.from_bytes(b"old")
    device = FailingDevice(inner, Fault(WRITES, errno=errno.ENOSPC))
    with pytest.raises(DeviceError) as caught:
        device.writev(0, [b"n", b"ew"])
    assert caught.value.errno == errno.ENOSPC
    assert inner.snapshot() == b"old"


def test_read_nowait_leaves_the_failing_to_the_blocking_read() -> None:
    device = FailingDevice(MemoryDevice(16), Fault(frozenset({Request.READ}), start=8))
    assert device.read_nowait(0, 8) == bytes(8)
    assert device.read_nowait(8, 8) is None
    with pytest.raises(DeviceError):
        device.read(8, 8)
    assert device.read(8, 8) == bytes(8)


def test_faults_count_on_their_own_and_can_be_added_later() -> None:
    device = FailingDevice(MemoryDevice(16), Fault(WRITES, skip=1))
    assert outcomes(device, 1) == [True]
    device.add(Fault(WRITES, skip=2))
    assert outcomes(device, 4) == [False, True, False, True]
    assert device.failures == 2
