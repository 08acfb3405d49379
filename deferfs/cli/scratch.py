"""A command on a mount that lives as long as the command does."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

from deferfs.cli.format_image import Request, format_image
from deferfs.cli.output import json_text, report, tell
from deferfs.cli.stat_table import activity_lines, gc_line
from deferfs.contract.requests import GetStatistics
from deferfs.contract.statistics import decode
from deferfs.errors import EnvironmentProblem
from deferfs.limits import BLOCK_SIZE_BYTES_DEFAULT
from deferfs.measure.host.cgroup import MemoryCgroup, find_hierarchy
from deferfs.mount.control import client
from deferfs.mount.daemon.start import start
from deferfs.mount.daemon.unmount import unmount
from deferfs.mount.host import syscalls
from deferfs.mount.host.options import parse_options
from deferfs.mount.host.output_file import check_replaceable, write_results

EXIT_NOT_FOUND: Final = 127
"""The exit code of a shell for a command that it does not find."""
EXIT_NOT_EXECUTABLE: Final = 126
"""The exit code of a shell for a command that it cannot execute."""


@dataclass(frozen=True, slots=True)
class Scratch:
    """What `deferfs run` was asked for; sizes in bytes."""

    evict: str
    memory_limit: int | None
    image: str | None
    size: int
    options: tuple[str, ...]
    json_file: str | None
    quiet: bool = False


def run_in_scratch(scratch: Scratch, arguments: Sequence[str]) -> int:
    """Mount, run `arguments` there, unmount, report. The exit code of the command."""
    options = parse_options([*scratch.options, f"evict={scratch.evict}"])
    if scratch.json_file is not None:
        check_replaceable(scratch.json_file)
    keep_mounts_private()
    with ExitStack() as stack:
        cgroup = stack.enter_context(_cgroup(scratch.memory_limit))
        home = stack.enter_context(_directory())
        image = scratch.image or os.path.join(home, "scratch.img")
        if not os.path.exists(image):
            format_image(Request(image, scratch.size, BLOCK_SIZE_BYTES_DEFAULT, None, "", None))
        mountpoint = os.path.join(home, "mount")
        os.mkdir(mountpoint)
        start(image, mountpoint, options, foreground=False, notice=tell)
        stack.callback(_unmount, mountpoint)
        code = _run(arguments, mountpoint, cgroup)
        statistics = client.ask_untyped(client.find_mount(mountpoint), GetStatistics())
    _report(scratch, statistics, mountpoint)
    return code


def keep_mounts_private() -> None:
    """Enter a mount namespace of its own: a mount in the common one would be copied into each mount namespace that is
    made meanwhile (a container), and its image could not be released before that ends. An ordinary user cannot prevent
    it."""
    if os.geteuid() == 0:
        with suppress(PermissionError):  # root of a container
            syscalls.leave_mount_namespace()


@contextmanager
def _directory() -> Iterator[str]:
    """A temporary directory for mountpoint and image; left alone while something is still mounted in it."""
    home = tempfile.mkdtemp(prefix="deferfs-run-")
    try:
        yield home
    finally:
        if not os.path.ismount(os.path.join(home, "mount")):
            shutil.rmtree(home)


@contextmanager
def _cgroup(limit: int | None) -> Iterator[MemoryCgroup | None]:
    if limit is None:
        yield None
        return
    hierarchy = find_hierarchy()
    if hierarchy is None:
        raise EnvironmentProblem("no memory cgroups on this machine; leave out --memory-limit")
    with MemoryCgroup(hierarchy, f"deferfs-run-{os.getpid()}", limit) as cgroup:
        yield cgroup


def _unmount(mountpoint: str) -> None:
    unmount(mountpoint, notice=tell)


def _run(arguments: Sequence[str], directory: str, cgroup: MemoryCgroup | None) -> int:
    """The command has the terminal: an interrupt is for it, and we clean up after it."""

    def join() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if cgroup is not None:
            cgroup.add(os.getpid())

    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        child = subprocess.Popen(list(arguments), cwd=directory, preexec_fn=join)
    except FileNotFoundError:
        tell(f"{arguments[0]}: command not found")
        return EXIT_NOT_FOUND
    except PermissionError as error:
        tell(f"{arguments[0]}: {error.strerror}")
        return EXIT_NOT_EXECUTABLE
    else:
        return _wait(child)
    finally:
        signal.signal(signal.SIGINT, before)


def _wait(child: subprocess.Popen[bytes]) -> int:
    """The exit code as a shell has it. A request to terminate goes to the command."""

    def forward(number: int, _frame: object) -> None:
        child.send_signal(number)

    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, forward) for number in numbers}
    try:
        code = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 128 - code if code < 0 else code


def _report(scratch: Scratch, statistics: Any, mountpoint: str) -> None:
    if scratch.json_file is not None:
        write_results(scratch.json_file, json_text(statistics).encode())
    if scratch.quiet:
        return
    found = decode(statistics, mountpoint)
    tell(f"evict {found.evict}")
    for line in (gc_line(found), *activity_lines(found)):
        report(line)
