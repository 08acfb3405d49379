"""The FUSE protocol of one file, without a kernel."""

import errno
import stat
import struct

import pytest

from deferfs.measure.slow_disk import wire
from deferfs.measure.slow_disk.wire import OneFile, ProtocolError, Transfer

SIZE = 8 << 20
ROOT, FILE = 1, 2


@pytest.fixture
def file() -> OneFile:
    return OneFile(SIZE, depth=17)


def request(opcode: int, body: bytes = b"", node: int = FILE, unique: int = 42) -> memoryview:
    header = wire.IN_HEADER.pack(wire.IN_HEADER.size + len(body), opcode, unique, node, 0, 0, 1, 0, 0)
    return memoryview(header + body)


def transfer(opcode: int, offset: int, length: int, data: bytes = b"") -> memoryview:
    return request(opcode, wire.TRANSFER_IN.pack(FILE, offset, length, 0, 0, 0, 0) + data)


def answered(answer: Transfer | bytes | None) -> tuple[int, bytes]:
    """The error (positive) and body of an answer to request 42; the length in it is right."""
    assert isinstance(answer, bytes)
    length, error, unique = wire.OUT_HEADER.unpack_from(answer)
    assert (length, unique) == (len(answer), 42)
    return -error, answer[wire.OUT_HEADER.size :]


def test_init_asks_for_asynchronous_direct_io_and_the_depth(file: OneFile) -> None:
    offered = 0xFFFFFFFF
    error, body = answered(
        file.receive(request(wire.INIT, struct.pack("=IIIIII", 7, 45, 65536, offered, 0, 0) + bytes(40)))
    )
    assert error == 0
    assert len(body) == 64
    major, minor, readahead, flags, background, threshold, max_write, _, pages, _ = wire.INIT_OUT.unpack(body)
    assert (major, minor, readahead) == (7, 31, 65536)
    assert flags == wire.FUSE_ASYNC_READ | wire.FUSE_BIG_WRITES | wire.FUSE_ASYNC_DIO | wire.FUSE_MAX_PAGES
    assert (background, threshold) == (17, 17)
    assert (max_write, pages * 4096) == (wire.REQUEST_BYTES_MAX, wire.REQUEST_BYTES_MAX)


def test_init_takes_no_flag_that_the_kernel_does_not_offer(file: OneFile) -> None:
    _, body = answered(file.receive(request(wire.INIT, wire.INIT_IN.pack(7, 31, 0, wire.FUSE_ASYNC_DIO))))
    assert wire.INIT_OUT.unpack(body)[3] == wire.FUSE_ASYNC_DIO


@pytest.mark.parametrize("version", [(6, 40), (8, 1), (7, 12)])
def test_other_versions_of_the_protocol_are_refused(file: OneFile, version: tuple[int, int]) -> None:
    assert answered(file.receive(request(wire.INIT, wire.INIT_IN.pack(*version, 0, 0))))[0] == errno.EPROTO


def test_the_one_name_is_found_and_no_other(file: OneFile) -> None:
    error, body = answered(file.receive(request(wire.LOOKUP, b"disk\0", node=ROOT)))
    assert error == 0
    assert wire.ENTRY_HEAD.unpack_from(body)[0] == FILE
    attributes = wire.ATTR.unpack(body[wire.ENTRY_HEAD.size :])
    assert attributes[:3] == (FILE, SIZE, SIZE // 512)
    assert len(body) == 128
    for name, node in ((b"desk\0", ROOT), (b"disk", ROOT), (b"", ROOT), (b"disk\0", FILE)):
        assert answered(file.receive(request(wire.LOOKUP, name, node=node)))[0] == errno.ENOENT


def test_attributes(file: OneFile) -> None:
    for node, kind in ((ROOT, stat.S_IFDIR), (FILE, stat.S_IFREG)):
        error, body = answered(file.receive(request(wire.GETATTR, bytes(16), node=node)))
        assert (error, len(body)) == (0, 104)
        assert stat.S_IFMT(wire.ATTR.unpack(body[wire.ATTR_HEAD.size :])[9]) == kind


def test_times_may_be_set_but_not_the_size(file: OneFile) -> None:
    assert answered(file.receive(request(wire.SETATTR, struct.pack("=I", 1 << 5) + bytes(84))))[0] == 0
    assert answered(file.receive(request(wire.SETATTR, struct.pack("=I", 1 << 3) + bytes(84))))[0] == errno.EPERM
    assert answered(file.receive(request(wire.SETATTR)))[0] == errno.EPERM


def test_open_goes_past_the_page_cache(file: OneFile) -> None:
    error, body = answered(file.receive(request(wire.OPEN, bytes(8))))
    assert error == 0
    assert wire.OPEN_OUT.unpack(body)[1] & wire.FOPEN_DIRECT_IO
    assert answered(file.receive(request(wire.OPEN, bytes(8), node=ROOT)))[0] == errno.EISDIR


def test_statfs(file: OneFile) -> None:
    error, body = answered(file.receive(request(wire.STATFS, node=ROOT)))
    assert (error, len(body)) == (0, 80)
    assert wire.STATFS_OUT.unpack(body)[0] == SIZE // 4096


def test_reads_and_writes_are_passed_on(file: OneFile) -> None:
    found = file.receive(transfer(wire.READ, 4096, 8192))
    assert isinstance(found, Transfer)
    assert found[:4] == ("read", 42, 4096, 8192)
    found = file.receive(transfer(wire.WRITE, 512, 3, b"abc"))
    assert isinstance(found, Transfer)
    assert found[:4] == ("write", 42, 512, 3)
    assert bytes(found.data) == b"abc"
    found = file.receive(request(wire.FSYNC, bytes(16)))
    assert isinstance(found, Transfer)
    assert found.kind == "flush"


def test_the_end_of_the_disk(file: OneFile) -> None:
    for offset, length in ((SIZE - 512, 512), (SIZE, 0), (SIZE + 4096, 0)):
        found = file.receive(transfer(wire.READ, offset, 4096))
        assert isinstance(found, Transfer)
        assert found.length == length
    assert isinstance(file.receive(transfer(wire.WRITE, SIZE - 2, 2, b"ab")), Transfer)
    assert answered(file.receive(transfer(wire.WRITE, SIZE - 2, 3, b"abc")))[0] == errno.ENOSPC
    assert answered(file.receive(transfer(wire.WRITE, 2**64 - 1, 3, b"abc")))[0] == errno.ENOSPC


@pytest.mark.parametrize(
    "message",
    [
        request(wire.READ),
        request(wire.WRITE, bytes(39)),
        transfer(wire.READ, 0, wire.REQUEST_BYTES_MAX + 1),
        transfer(wire.WRITE, 0, 4, b"abc"),
        transfer(wire.WRITE, 0, 2, b"abc"),
    ],
    ids=["a read without a body", "a write cut short", "a read too long", "data missing", "data left over"],
)
def test_transfers_with_wrong_lengths_are_refused(file: OneFile, message: memoryview) -> None:
    assert answered(file.receive(message))[0] == errno.EINVAL


def test_unneeded_requests_are_refused(file: OneFile) -> None:
    known = {1, 3, 4, 14, 15, 16, 17, 18, 20, 25, 26, 38}
    for opcode in set(range(60)) - known - {wire.FORGET, wire.BATCH_FORGET}:
        assert answered(file.receive(request(opcode, bytes(64))))[0] == errno.ENOSYS


def test_ends_are_acknowledged_and_forgets_not_answered(file: OneFile) -> None:
    for opcode in (wire.RELEASE, wire.FLUSH, wire.DESTROY):
        assert answered(file.receive(request(opcode, bytes(24)))) == (0, b"")
    for opcode in (wire.FORGET, wire.BATCH_FORGET):
        assert file.receive(request(opcode, bytes(8))) is None


def test_an_invalid_request_is_an_error(file: OneFile) -> None:
    whole = bytes(request(wire.STATFS))
    for broken in (b"", whole[:-1], whole + b"\0"):
        with pytest.raises(ProtocolError):
            file.receive(memoryview(broken))


def test_answers_count_the_data_behind_them() -> None:
    assert wire.OUT_HEADER.unpack(wire.reply(7, data_bytes=4096)) == (16 + 4096, 0, 7)
    assert wire.OUT_HEADER.unpack(wire.refusal(7, errno.EIO)) == (16, -errno.EIO, 7)
    assert answered(wire.written(42, 512)) == (0, struct.pack("=II", 512, 0))
