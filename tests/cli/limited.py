"""Functions run in a process with little memory and little time, as images made to do harm must not need more.

The processes are forked from one that has done the imports: these take longer than most of what is run.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import shlex
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from deferfs.cli import main
from tests.unit.check.rummage import rummage

MEMORY_BYTES: Final = 512 << 20
CPU_SECONDS: Final = 60
WALL_SECONDS: Final = 110
UNCHANGED: Final = "UNCHANGED"
"""In place of a command: the image is still what it was."""

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([__name__, "deferfs.cli.fsck", "deferfs.cli.debug"])


class Ended(NamedTuple):
    """The exit code of the process (negative: the signal that killed it), and all that it has printed."""

    code: int
    output: str


def run(function: Callable[..., None], *arguments: str) -> Ended:
    """Call a function of a module in such a process; an error ends it with a traceback and another code than 0."""
    with tempfile.NamedTemporaryFile() as output:
        process = _context.Process(target=_inside, args=(output.name, function, arguments))
        process.start()
        process.join(WALL_SECONDS)
        process.kill()
        process.join()
        code = process.exitcode
        process.close()
        assert code is not None
        return Ended(code, output.read().decode(errors="backslashreplace"))


def _inside(output: str, function: Callable[..., None], arguments: tuple[str, ...]) -> None:
    """What exceeds the limits fails with MemoryError, or dies."""
    descriptor = os.open(output, os.O_WRONLY | os.O_APPEND)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    os.environ["DEFERFS_DEBUG"] = "1"
    function(*arguments)


def commands(image: str, *commands: str) -> None:
    """Run `deferfs` with each of these, IMAGE for the image, or check that it is UNCHANGED so far."""
    before = Path(image).read_bytes() if UNCHANGED in commands else b""
    for command in commands:
        if command == UNCHANGED:
            assert Path(image).read_bytes() == before
            continue
        words = [image if word == "IMAGE" else word for word in shlex.split(command)]
        code = main.run(words)
        print(f"code {code}: {command}", flush=True)
        assert code in (0, 1, 4, 8), command


def use(image: str) -> None:
    """As a mount would work on it, without the kernel."""
    rummage(Path(image).read_bytes())
