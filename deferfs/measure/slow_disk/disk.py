"""A slow disk for the length of a `with` block: the server, the FUSE file that it serves, and the loop device over it.

Only the loop device is visible in the file tree, and the kernel removes everything with its last user: closing the
descriptors detaches the loop device, which closes the FUSE file, which ends the filesystem, which ends the server. The
same happens when the process is killed. When the server is killed, the kernel fails every request at once; nothing
hangs.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final

import msgspec

import deferfs
from deferfs.errors import DeferfsError, EnvironmentProblem
from deferfs.measure.slow_disk import kernel, wire
from deferfs.measure.slow_disk.presets import Preset, preset_of
from deferfs.measure.slow_disk.server import MESSAGE_BYTES_MAX, Answer, Order

SECTOR_BYTES: Final = 512
ANSWER_SECONDS_MAX: Final = 30.0
DETACH_SECONDS_MAX: Final = 5.0
"""How long the loop device may stay in use after the block: udev opens every device for a moment."""
_FUSE_SOURCE: Final = "deferfs-slow-disk"
_numbers: Final = itertools.count()


class SlowDiskError(DeferfsError):
    """The slow disk could not be made, has died, or was still in use at its end."""


def missing() -> str:
    """What this machine lacks for a slow disk, in one line; empty if nothing."""
    if os.geteuid() != 0:
        return "a slow disk needs root"
    for path in (kernel.FUSE_DEVICE, kernel.LOOP_CONTROL):
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
        except OSError as error:
            return f"a slow disk needs {path}: {error.strerror}"
    try:
        os.close(kernel.fuse_context())
    except OSError as error:
        return f"a slow disk needs the right to mount FUSE filesystems: {error.strerror}"
    return ""


class SlowDisk:
    """The disk `image` (a file or block device), with the latencies of `preset` (a `Preset`, or the text of one).

    `scratch`: a directory for temporary files. `own` is called with the server's process id. `seed` seeds the jitter.
    The server runs in the memory cgroup of the process that enters the block: do not enter it in a limited one.

    Raises `EnvironmentProblem` when the machine lacks something, `SlowDiskError` when the image is unusable or, at the
    end of a successful block, when the server had died or the device was still in use. The device is then gone or
    returns errors, and is detached with its last user.
    """

    def __init__(
        self, image: Path, preset: str | Preset, scratch: Path, own: Callable[[int], None], seed: int = 0
    ) -> None:
        self._image = image
        self._preset = _resolved(preset)
        self._scratch = scratch
        self._own = own
        self._seed = seed
        self._lock = threading.Lock()
        self._last: dict[str, int] = {}
        self._device: Path | None = None
        self._holder = -1
        self._server: subprocess.Popen[bytes] | None = None
        self._complaints: BinaryIO | None = None
        self._control: socket.socket | None = None

    @property
    def device(self) -> Path:
        """The loop device."""
        if self._device is None:
            raise SlowDiskError("the slow disk is not attached")
        return self._device

    @property
    def pid(self) -> int:
        """The server's process."""
        if self._server is None:
            raise SlowDiskError("the slow disk is not attached")
        return self._server.pid

    def set_preset(self, preset: str | Preset) -> None:
        """Change the preset. Requests that have arrived keep their latencies."""
        chosen = _resolved(preset)
        self._ask(Order(next(_numbers), chosen))
        self._preset = chosen
        with contextlib.suppress(OSError):  # filesystems read it at mount; not every kernel lets it be changed
            if kernel.is_rotational(self.device) != chosen.rotational:  # a change waits for all requests in flight
                kernel.set_rotational(self.device, chosen.rotational)

    def counters(self) -> dict[str, int]:
        """The work of the disk since its start: see `Counters`. After the block: at its end."""
        if self._server is not None:
            self._ask(Order(next(_numbers)))
        return dict(self._last)

    def __enter__(self) -> SlowDisk:
        if lack := missing():
            raise EnvironmentProblem(lack)
        try:
            self._attach()
            self.set_preset(self._preset)
        except BaseException:
            self._detach()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        device, obstacle = self._device, ""
        try:
            self.set_preset("none")  # writeback at the end is not measured
        except SlowDiskError as problem:
            obstacle = str(problem)
        if not self._detach() and not obstacle:
            obstacle = f"{device} is still in use: it answers with errors now, and is detached with its last user"
        if obstacle and kind is None:
            raise SlowDiskError(obstacle)

    # --- setup and teardown ---

    def _attach(self) -> None:
        with _closing_descriptor(_open_image(self._image)) as image, contextlib.ExitStack() as opened:
            root = self._start_server(image, opened)
            try:
                file = os.open(wire.FILE_NAME, os.O_RDWR | os.O_CLOEXEC, dir_fd=root)
            except OSError as error:
                raise SlowDiskError(f"the slow disk cannot be served: {self._last_words(error)}") from error
            opened.enter_context(_closing_descriptor(file))
            try:
                self._device, self._holder = kernel.attach_loop(file)
            except OSError as error:
                raise EnvironmentProblem(f"a slow disk needs a loop device: {error.strerror}") from error
        if not kernel.has_direct_io(self._device):
            raise EnvironmentProblem(f"the loop driver of this kernel does no direct IO on FUSE files ({self._device})")

    def _start_server(self, image: int, opened: contextlib.ExitStack) -> int:
        """The root directory of the filesystem, whose descriptor `opened` closes.

        From here on only the server holds /dev/fuse: when it dies, all waiting requests fail.
        """
        try:
            with _closing_descriptor(os.open(kernel.FUSE_DEVICE, os.O_RDWR | os.O_CLOEXEC)) as fuse:
                root = opened.enter_context(_closing_descriptor(kernel.fuse_mount(fuse, _FUSE_SOURCE)))
                self._server = self._started(fuse, image)
        except OSError as error:
            raise EnvironmentProblem(f"a slow disk cannot be mounted here: {error.strerror}") from error
        self._own(self._server.pid)
        return root

    def _started(self, fuse: int, image: int) -> subprocess.Popen[bytes]:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.settimeout(ANSWER_SECONDS_MAX)
        self._complaints = tempfile.TemporaryFile(dir=self._scratch)  # noqa: SIM115  (closed with the disk)
        with theirs:
            numbers = [fuse, image, theirs.fileno(), os.getpid(), self._seed]
            return subprocess.Popen(
                [sys.executable, "-P", "-m", "deferfs.measure.slow_disk", *map(str, numbers)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._complaints,
                pass_fds=[fuse, image, theirs.fileno()],
                cwd="/",
                # the code of this process, installed or not
                env={**os.environ, "PYTHONPATH": str(Path(deferfs.__file__).resolve().parents[1])},
                start_new_session=True,  # an interrupt from the terminal must not reach the disk
            )

    def _detach(self) -> bool:
        """Remove everything; whether that succeeded without force."""
        with contextlib.ExitStack() as last:  # runs even if an interrupt ends this early
            if self._control is not None:
                last.callback(self._control.close)
            if self._complaints is not None:
                last.callback(self._complaints.close)
            if self._server is not None:
                last.callback(_end, self._server)
            if self._holder >= 0:
                os.close(self._holder)
            ended = self._server is None or self._device is None or _ended_within(self._server, DETACH_SECONDS_MAX)
            self._holder, self._device, self._server, self._control, self._complaints = -1, None, None, None, None
            return ended

    # --- talking to the server ---

    def _ask(self, order: Order) -> None:
        if self._control is None:
            raise SlowDiskError("the slow disk is not attached")
        with self._lock:
            try:
                self._control.send(msgspec.json.encode(order))
                answer = self._control.recv(MESSAGE_BYTES_MAX)
                # the answer to an interrupted order may come first
                while answer and (decoded := msgspec.json.decode(answer, type=Answer)).number != order.number:
                    answer = self._control.recv(MESSAGE_BYTES_MAX)
            except OSError as error:
                raise SlowDiskError(f"the server of the slow disk is gone: {self._last_words(error)}") from error
            if not answer:
                raise SlowDiskError(f"the server of the slow disk is gone: {self._last_words(None)}")
            self._last = msgspec.to_builtins(decoded.counters)

    def _last_words(self, error: OSError | None) -> str:
        """Why the server is gone: the last line of its output, the signal that ended it, or the given error."""
        if self._server is not None and self._complaints is not None and _ended_within(self._server, 1.0):
            self._complaints.seek(0)
            if lines := self._complaints.read().decode(errors="replace").split("\n")[:-1]:
                return lines[-1]
            if (code := self._server.returncode) < 0:
                return f"ended by signal {-code}"
            return f"ended with code {code}"
        return error.strerror if error is not None and error.strerror else "no answer"


def _resolved(preset: str | Preset) -> Preset:
    return preset_of(preset) if isinstance(preset, str) else preset


def _open_image(image: Path) -> int:
    try:
        fd = os.open(image, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise SlowDiskError(f"cannot use {image} as a disk: {error.strerror}") from error
    try:
        size = os.lseek(fd, 0, os.SEEK_END)
    except OSError as error:
        os.close(fd)
        raise SlowDiskError(f"cannot use {image} as a disk: {error.strerror}") from error
    if size == 0 or size % SECTOR_BYTES:
        os.close(fd)
        raise SlowDiskError(f"cannot use {image} as a disk: its size is {size} bytes, no multiple of {SECTOR_BYTES}")
    return fd


@contextlib.contextmanager
def _closing_descriptor(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        with contextlib.suppress(OSError):  # closing a file whose server has died reports that again
            os.close(fd)


def _end(process: subprocess.Popen[Any]) -> None:
    process.kill()
    process.wait()


def _ended_within(process: subprocess.Popen[Any], seconds: float) -> bool:
    """Wait at most `seconds` for the end of a process."""
    if process.poll() is not None:
        return True
    watched = os.pidfd_open(process.pid)
    with _closing_descriptor(watched):
        select.select([watched], [], [], seconds)
    return process.poll() is not None
