from deferfs.device import DelayingDevice, Delays, MemoryDevice


def test_each_kind_of_request_waits_its_own_time_before_it_is_passed_on() -> None:
    waits: list[float] = []
    delays = Delays(read_seconds=1, write_seconds=2, flush_seconds=3, discard_seconds=4)
    device = DelayingDevice(MemoryDevice(16), waits.append, delays)
    device.write(0, b"a")
    device.writev(1, [b"b", b"c"])
    device.flush()
    device.discard(8, 8)
    assert device.read(0, 3) == b"abc"
    assert waits == [2, 2, 3, 4, 1]


def test_the_wait_comes_first() -> None:
    inner = MemoryDevice(4)
    seen: list[bytes] = []
    device = DelayingDevice(inner, lambda _: seen.append(inner.snapshot()), Delays(write_seconds=1))
    device.write(0, b"late")
    assert seen == [bytes(4)]


def test_a_delayed_read_would_block() -> None:
    device = DelayingDevice(MemoryDevice.from_bytes(b"abcd"), lambda _: None, Delays())
    assert device.read_nowait(0, 4) == b"abcd"
    device.delays = Delays(read_seconds=0.001)
    assert device.read_nowait(0, 4) is None


def test_no_delay_means_no_call() -> None:
    waits: list[float] = []
    device = DelayingDevice(MemoryDevice(4), waits.append, Delays(flush_seconds=1))
    device.write(0, b"a")
    device.read(0, 1)
    assert waits == []
