"""The server as a process, with a socket in the place of /dev/fuse: it keeps the bounds of messages, too."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from deferfs.measure.slow_disk import wire
from deferfs.measure.slow_disk.counters import Counters
from deferfs.measure.slow_disk.presets import Preset, preset_of
from deferfs.measure.slow_disk.server import Answer, Order

ROOT = Path(__file__).resolve().parents[4]
SIZE = 1 << 20
SECONDS_MAX = 60.0
FAR_MS = 60_000.0


@dataclass
class Running:
    process: subprocess.Popen[bytes]
    kernel: socket.socket
    control: socket.socket

    def order(self, preset: Preset | None = None) -> Counters:
        self.control.send(msgspec.json.encode(Order(5, preset)))
        answer = msgspec.json.decode(self.control.recv(1 << 16), type=Answer)
        assert answer.number == 5
        return answer.counters

    def send(self, opcode: int, unique: int, body: bytes = b"") -> None:
        header = wire.IN_HEADER.pack(wire.IN_HEADER.size + len(body), opcode, unique, 2, 0, 0, 1, 0, 0)
        self.kernel.send(header + body)

    def transfer(self, opcode: int, unique: int, offset: int, length: int, data: bytes = b"") -> None:
        self.send(opcode, unique, wire.TRANSFER_IN.pack(2, offset, length, 0, 0, 0, 0) + data)

    def answer(self) -> tuple[int, int, bytes]:
        """Of which request, its errno, and the rest."""
        message = self.kernel.recv(wire.BUFFER_BYTES)
        length, error, unique = wire.OUT_HEADER.unpack_from(message)
        assert length == len(message)
        return unique, -error, message[wire.OUT_HEADER.size :]

    def wait_for(self, counter: str) -> None:
        """One of these requests has arrived in the model."""
        while not getattr(self.order(), counter):
            assert self.process.poll() is None

    def ends(self) -> bool:
        self.process.wait(SECONDS_MAX)
        return True


def command(kernel: socket.socket, image: int, control: socket.socket, parent: int) -> list[str]:
    numbers = (kernel.fileno(), image, control.fileno(), parent, 0)
    return [sys.executable, "-m", "deferfs.measure.slow_disk", *map(str, numbers)]


@pytest.fixture
def image(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "image", os.O_RDWR | os.O_CREAT)
    os.truncate(fd, SIZE)
    yield fd
    os.close(fd)


@pytest.fixture
def running(image: int) -> Iterator[Running]:
    with contextlib.ExitStack() as stack:
        kernel, theirs = (stack.enter_context(one) for one in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        control, its = (stack.enter_context(one) for one in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        for one in (kernel, control):
            one.settimeout(SECONDS_MAX)
        process = subprocess.Popen(
            command(theirs, image, its, os.getpid()),
            pass_fds=[theirs.fileno(), image, its.fileno()],
            cwd=ROOT,
            stderr=subprocess.DEVNULL,
        )
        stack.callback(process.wait)
        stack.callback(process.kill)
        its.close()
        theirs.close()
        yield Running(process, kernel, control)


def test_written_bytes_are_read(running: Running, image: int) -> None:
    running.transfer(wire.WRITE, 1, 4096, 5, b"hello")
    assert running.answer() == (1, 0, wire.WRITE_OUT.pack(5, 0))
    running.send(wire.FSYNC, 2, bytes(16))
    assert running.answer() == (2, 0, b"")
    running.transfer(wire.READ, 3, 4096, 6)
    assert running.answer() == (3, 0, b"hello\0")
    assert os.pread(image, 5, 4096) == b"hello"
    found = running.order()
    assert (found.reads, found.writes, found.flushes, found.read_bytes, found.write_bytes) == (1, 1, 1, 6, 5)
    assert found.errors == 0


def test_all_else_is_answered_without_delay(running: Running) -> None:
    running.order(preset_of("read=60000,write=60000,flush=60000"))
    running.send(wire.STATFS, 1)
    assert running.answer()[:2] == (1, 0)
    running.send(wire.FORGET, 2, bytes(8))
    running.send(46, 3)
    assert running.answer()[:2] == (3, errno.ENOSYS)


def test_requests_sleep_side_by_side_and_answers_come_in_order_of_their_ends(running: Running) -> None:
    """A sleep held by one thread for all would let the long read keep the write back."""
    running.order(preset_of("read=60000,write=20"))
    running.transfer(wire.READ, 1, 0, 512)
    running.wait_for("reads")
    start = time.monotonic_ns()
    running.transfer(wire.WRITE, 2, 0, 1, b"x")
    assert running.answer()[0] == 2
    assert time.monotonic_ns() - start >= 20_000_000
    assert running.order().queue_max == 2


def test_a_flush_waits_for_what_came_before(running: Running) -> None:
    running.order(preset_of("write=30,flush=10"))
    start = time.monotonic_ns()
    running.transfer(wire.WRITE, 1, 0, 1, b"x")
    running.send(wire.FSYNC, 2, bytes(16))
    assert [running.answer()[0], running.answer()[0]] == [1, 2]
    assert time.monotonic_ns() - start >= 40_000_000


def test_another_preset_holds_for_what_comes_after(running: Running) -> None:
    running.order(preset_of("read=60000"))
    running.transfer(wire.READ, 1, 0, 512)
    running.wait_for("reads")
    running.order(preset_of("none"))
    running.transfer(wire.READ, 2, 0, 512)
    assert running.answer()[0] == 2


def test_an_image_that_shrinks_gives_an_error_not_a_hang(running: Running, image: int) -> None:
    running.order()  # it has seen the size
    os.truncate(image, 4096)
    running.transfer(wire.READ, 1, 4096, 512)
    assert running.answer() == (1, errno.EIO, b"")
    assert running.order().errors == 1


def test_an_interrupt_is_not_for_the_disk(running: Running) -> None:
    running.order()  # it has come so far that it ignores it
    for number in (signal.SIGINT, signal.SIGHUP):
        running.process.send_signal(number)
    running.transfer(wire.READ, 1, 0, 4)
    assert running.answer()[0] == 1


def test_the_server_ends_when_its_orders_end(running: Running) -> None:
    running.order(preset_of(f"read={FAR_MS:g}"))
    running.transfer(wire.READ, 1, 0, 512)
    running.wait_for("reads")
    running.control.close()
    assert running.ends()
    assert running.process.returncode == 0


def test_the_server_ends_on_what_is_no_request(running: Running) -> None:
    """Nothing could be answered, and its caller would wait for ever: closing /dev/fuse gives it an error."""
    running.kernel.send(b"garbage")
    assert running.ends()
    assert running.process.returncode == 1


PARENT = """
import os, subprocess, sys
words = sys.argv[1:]
words[-2] = str(os.getpid())
child = subprocess.Popen(words, pass_fds=[int(word) for word in words[-5:-2]])
print(child.pid, flush=True)
child.wait()
"""


def test_the_server_dies_with_its_parent(image: int) -> None:
    """Though the other ends of its sockets live on."""
    kernel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    control, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with kernel, theirs, control, its:
        control.settimeout(SECONDS_MAX)
        parent = subprocess.Popen(
            [sys.executable, "-c", PARENT, *command(theirs, image, its, 0)],
            pass_fds=[theirs.fileno(), image, its.fileno()],
            stdout=subprocess.PIPE,
            cwd=ROOT,
        )
        with parent:
            assert parent.stdout is not None
            server = os.pidfd_open(int(parent.stdout.readline()))
            try:
                control.send(msgspec.json.encode(Order(1)))
                assert control.recv(1 << 16)
                parent.kill()
                assert select.select([server], [], [], SECONDS_MAX)[0]
            finally:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(server, signal.SIGKILL)
                os.close(server)
