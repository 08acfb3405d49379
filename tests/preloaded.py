"""Runs `deferfs` commands in children of a process that has imported what commands and daemon need.

Importing it takes most of the processor time of a mount, and the tests mount many hundred times. The child is a process
as one that starts afresh, but for what it inherits: its command line and /proc/PID/environ are those of the process
that has done the imports, and its resident size is not that of a program that a user starts.

This file is also the program of that process: `preloaded.py FD`, which imports nothing of the tests.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Final, NoReturn

import deferfs

MODULES: Final = (
    "deferfs.cli.main",
    "deferfs.cli.ctl",
    "deferfs.cli.fsck",
    "deferfs.cli.mount",
    "deferfs.cli.output",
    "deferfs.cli.stat",
    "deferfs.cli.umount",
    "deferfs.mount.daemon.session",
    "deferfs.mount.daemon.start",
    "deferfs.mount.daemon.unmount",
)
"""What `deferfs mount` imports in the course of a mount, and others that tests call often."""
REQUEST_BYTES_MAX: Final = 1 << 20
MARK: Final = "DEFERFS_TEST"
"""The environment variable by which the sweep after a test (tests/conftest.py) knows processes."""


class Preloaded:
    """The process with the imports, as long as it is not closed; tests ask it to run commands."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", __file__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONPATH": str(Path(deferfs.__file__).parents[1]), MARK: mark()},
                stdin=subprocess.DEVNULL,
                cwd="/",
            )
        self._socket = ours

    @property
    def pid(self) -> int:
        """Of the process that has done the imports: its children are those of tests, it is not."""
        return self._process.pid

    def run(self, words: list[str], seconds: float) -> subprocess.CompletedProcess[str]:
        """`deferfs WORDS` in a child, with this process's environment and directory. TimeoutError after so many
        seconds: then nothing more can be run."""
        request = json.dumps([words, dict(os.environ), os.getcwd()]).encode()
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
            self._socket.settimeout(seconds)
            socket.send_fds(self._socket, [request], [output.fileno(), errors.fileno()])
            code = int(self._socket.recv(100))
            texts = []
            for file in (output, errors):
                file.seek(0)
                texts.append(file.read().decode(errors="backslashreplace"))
        return subprocess.CompletedProcess(words, code, *texts)

    def close(self) -> None:
        """End the process. What it has started goes on."""
        self._socket.close()
        self._process.kill()
        self._process.wait()


_process: Preloaded | None = None


def run(words: list[str], seconds: float) -> subprocess.CompletedProcess[str]:
    """`deferfs WORDS` in a child of this test process's preloaded one, which the first call starts."""
    global _process
    if _process is None:
        _process = Preloaded()
    try:
        return _process.run(words, seconds)
    except BaseException:
        close()
        raise


def may_run() -> bool:
    """Whether what is started now belongs to a test that mounts: the sweep after it finds what is left. A mount that
    outlives its test is started afresh."""
    return MARK in os.environ


def pid() -> int | None:
    """Of the preloaded process, if there is one."""
    return None if _process is None else _process.pid


def mark() -> str:
    """What /proc/PID/environ names after `MARK` for all that this test process has ever run preloaded."""
    return f"preloaded-{os.getpid()}"


def close() -> None:
    """End the preloaded process, if there is one; the next call of `run` starts another."""
    global _process
    if _process is not None:
        _process.close()
        _process = None


# --- the program ---


def main() -> None:
    """Import, then run what is asked for, each in a child, until the socket is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the test process decides what an interrupt ends
    for module in MODULES:
        __import__(module)
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
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for fd, descriptor in enumerate(descriptors, 1):
            os.dup2(descriptor, fd)
            os.close(descriptor)
        words, environment, directory = json.loads(message)
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
