"""Runs `deferfs` commands in children of a process that has imported what they need.

Importing takes most of the time of a mount, in the command and again in its daemon. A child is a process as one that
starts afresh, but for what it inherits: /proc/PID/cmdline and /proc/PID/environ are those of the process that has done
the imports, and memory that this one has touched counts as resident in the child, too.

This module is also the program of that process: `python -m deferfs.measure.host.preloaded FD MODULE...`.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NoReturn

from deferfs.measure.host.interrupts import NUMBERS

MODULES: Final = (
    "deferfs.cli.main",
    "deferfs.cli.mount",
    "deferfs.cli.output",
    "deferfs.cli.umount",
    "deferfs.mount.daemon.session",
    "deferfs.mount.daemon.start",
    "deferfs.mount.daemon.unmount",
)
"""What `deferfs mount` and its daemon import, and `deferfs umount`."""
REQUEST_BYTES_MAX: Final = 1 << 20
_ROOT: Final = Path(__file__).parents[3]


class Preloaded:
    """The process with the imports, until `close`. `environment`: what is added to its own."""

    def __init__(self, modules: Sequence[str] = MODULES, environment: Mapping[str, str] | None = None) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "deferfs.measure.host.preloaded", str(theirs.fileno()), *modules],
                pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONPATH": str(_ROOT), **(environment or {})},
                stdin=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,
            )
        self._socket = ours

    @property
    def pid(self) -> int:
        """Of the process that has done the imports; its children run the commands."""
        return self._process.pid

    @property
    def closed(self) -> bool:
        """Whether nothing more can be run."""
        return self._process.returncode is not None

    def run(self, words: Sequence[str], seconds_max: float) -> subprocess.CompletedProcess[str]:
        """`deferfs WORDS` in a child, with the environment and the directory of the caller (but the mount namespace
        that this had at the start). One caller at a time. TimeoutError when it does not end in time, ChildProcessError
        when the process with the imports was killed: after these, and after an interrupt, the command is killed, and
        nothing more can be run.
        """
        request = json.dumps([list(words), dict(os.environ), os.getcwd()]).encode()
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
            try:
                code = self._ask(request, [output.fileno(), errors.fileno()], seconds_max)
            except BaseException:
                self.close()
                raise
            texts = []
            for file in (output, errors):
                file.seek(0)
                texts.append(file.read().decode(errors="surrogateescape"))
        return subprocess.CompletedProcess(list(words), code, *texts)

    def _ask(self, request: bytes, outputs: list[int], seconds_max: float) -> int:
        self._socket.settimeout(seconds_max)
        socket.send_fds(self._socket, [request], outputs)
        answer = self._socket.recv(100)
        if not answer:
            raise ChildProcessError("the process with the imports was killed")
        return int(answer)

    def close(self) -> None:
        """End the process and the command that it runs, with what that has started. A daemon that is ready has a
        process group of its own, and goes on."""
        self._socket.close()
        if self._process.returncode is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


# --- the program ---


def main() -> None:
    """Import, then run what is asked for, each in a child, until the socket is closed."""
    for number in NUMBERS:
        signal.signal(number, signal.SIG_IGN)  # the process that asks decides what an interrupt ends
    gc.disable()
    for module in sys.argv[2:]:
        __import__(module)
    gc.collect()
    gc.freeze()  # a child that collects garbage would otherwise copy each page that holds an object
    gc.enable()
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        while True:
            message, descriptors, _, _ = socket.recv_fds(connection, REQUEST_BYTES_MAX, 2)
            if not message:
                return
            child = os.fork()
            if child == 0:
                connection.close()
                _run(message, descriptors)
            for descriptor in descriptors:
                os.close(descriptor)
            _, status = os.waitpid(child, 0)
            connection.send(str(os.waitstatus_to_exitcode(status)).encode())


def _run(message: bytes, descriptors: list[int]) -> NoReturn:
    code = 1
    try:
        words, environment, directory = json.loads(message)
        for number in NUMBERS:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for fd, descriptor in enumerate(descriptors, 1):
            os.dup2(descriptor, fd)
            os.close(descriptor)
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(directory)
        code = sys.modules["deferfs.cli.main"].run(words)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
