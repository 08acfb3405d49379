"""The server of a slow disk: a process that answers the kernel's requests at the times given by the model.

    python -m deferfs.measure.slow_disk FUSE IMAGE CONTROL PARENT SEED

The first three are inherited descriptors: /dev/fuse, already mounted, the image file, and a socket for the orders of
`SlowDisk`; PARENT is a process that it must not outlive. One thread for each slot of the longest queue reads /dev/fuse
in turn and sleeps by itself, so that no request waits for the sleep of another.
"""

from __future__ import annotations

import errno
import mmap
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
from typing import Final

import msgspec

from deferfs.measure.slow_disk import kernel, wire
from deferfs.measure.slow_disk.counters import Counters
from deferfs.measure.slow_disk.model import Model, Service
from deferfs.measure.slow_disk.presets import DEPTH_MAX, PRESETS, Preset

THREADS: Final = DEPTH_MAX + 4
"""Enough to read a flush, and the kernel's queries about the file, even when the queue is full."""
MESSAGE_BYTES_MAX: Final = 1 << 16
_STACK_BYTES: Final = 256 << 10
_AT_ONCE: Final = Service(0, 0, 0)


class Order(msgspec.Struct):
    """An order from `SlowDisk`: change the preset, or (None) only return the counters."""

    number: int
    preset: Preset | None = None


class Answer(msgspec.Struct):
    """The answer: the number of the order, and the counters."""

    number: int
    counters: Counters


class Server:
    """Serves until the filesystem is gone, which ends the process."""

    def __init__(self, fuse: int, image: int, seed: int) -> None:
        self._fuse = fuse
        self._image = image
        self._file = wire.OneFile(os.lseek(image, 0, os.SEEK_END), DEPTH_MAX)
        self._turn = threading.Lock()  # to read the next request
        self._lock = threading.Lock()  # the model and the counters
        self._model = Model(PRESETS["none"], seed)
        self._counters = Counters()

    def start(self) -> None:
        """Start the threads."""
        threading.stack_size(_STACK_BYTES)
        for number in range(THREADS):
            threading.Thread(target=self._serve, name=f"server {number}", daemon=True).start()

    def obey(self, control: socket.socket, parent: int) -> None:
        """Carry out orders until the parent (a pidfd) or the other end of the socket is gone."""
        while True:
            ready, _, _ = select.select([control.fileno(), parent], [], [])
            if parent in ready:
                return
            message = control.recv(MESSAGE_BYTES_MAX)
            if not message:
                return
            order = msgspec.json.decode(message, type=Order)
            with self._lock:
                if order.preset is not None:
                    self._model.set_preset(order.preset)
                answer = msgspec.json.encode(Answer(order.number, self._counters))
            control.send(answer)

    def _serve(self) -> None:
        try:
            buffer = memoryview(mmap.mmap(-1, wire.BUFFER_BYTES))  # unused pages take no memory
            while (arrival := self._arrival(buffer)) is not None:
                self._handle(*arrival, buffer)
        except BaseException:
            # an unanswered request would block its caller: end the process, and the request fails
            traceback.print_exc()
            os._exit(1)
        os._exit(0)

    def _arrival(self, buffer: memoryview) -> tuple[wire.Transfer | bytes | None, Service] | None:
        """The next request, and its times; None when the filesystem is gone.

        One thread at a time: the model needs requests in the order in which the kernel sent them.
        """
        with self._turn:
            length = self._next(buffer)
            if length is None:
                return None
            request = self._file.receive(buffer[:length])
            if not isinstance(request, wire.Transfer):
                return request, _AT_ONCE
            with self._lock:
                now = time.monotonic_ns()
                service = self._model.arrive(request.kind, request.offset, request.length, now)
                queued = min(self._model.waiting(now), self._model.preset.depth)
                self._counters.arrived(request.kind, request.length, queued, service.end - now)
            return request, service

    def _next(self, buffer: memoryview) -> int | None:
        while True:
            try:
                return os.readv(self._fuse, [buffer])
            except OSError as error:
                if error.errno == errno.ENODEV:
                    return None
                if error.errno not in (errno.ENOENT, errno.EINTR, errno.EAGAIN):  # withdrawn by the kernel
                    raise

    def _handle(self, request: wire.Transfer | bytes | None, service: Service, buffer: memoryview) -> None:
        if isinstance(request, wire.Transfer):
            self._transfer(request, service, buffer)
        elif request is not None:
            self._answer([request])

    def _transfer(self, request: wire.Transfer, service: Service, buffer: memoryview) -> None:
        try:
            answer = self._carry_out(request, buffer)
        except OSError as error:
            answer = [wire.refusal(request.unique, error.errno or errno.EIO)]
            with self._lock:
                self._counters.errors += 1
        # the transfer of the data counts as part of the latency
        while (left := service.end - time.monotonic_ns()) > 0:
            time.sleep(left / 1e9)
        with self._lock:
            self._counters.ended(service, time.monotonic_ns())
        self._answer(answer)

    def _carry_out(self, request: wire.Transfer, buffer: memoryview) -> list[bytes | memoryview]:
        if request.kind == "read":
            data = buffer[: request.length]
            done = 0
            while done < request.length:
                if not (count := os.preadv(self._image, [data[done:]], request.offset + done)):
                    raise OSError(errno.EIO, "the image has become shorter")
                done += count
            return [wire.reply(request.unique, data_bytes=done), data]
        if request.kind == "write":
            done = 0
            while done < request.length:
                done += os.pwrite(self._image, request.data[done:], request.offset + done)
            return [wire.written(request.unique, done)]
        return [wire.reply(request.unique)]

    def _answer(self, parts: list[bytes | memoryview]) -> None:
        try:
            os.writev(self._fuse, parts)
        except OSError as error:
            # ENOENT: the caller has been killed; ENODEV: the filesystem is gone, as the next read will report
            if error.errno not in (errno.ENOENT, errno.ENODEV):
                raise


def main(words: list[str]) -> None:
    """Serve until the filesystem, the socket's other end or the parent is gone."""
    fuse, image, control, parent, seed = map(int, words)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    kernel.become_a_disk()
    try:
        watched = os.pidfd_open(parent)
    except ProcessLookupError:
        return
    if os.getppid() != parent:
        return
    server = Server(fuse, image, seed)
    server.start()
    server.obey(socket.socket(fileno=control), watched)
    os._exit(0)  # without joining threads that sleep


if __name__ == "__main__":
    main(sys.argv[1:])
