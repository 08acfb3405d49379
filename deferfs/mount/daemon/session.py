"""The life cycle of a mount, inside the daemon.

lock the image -> recover and load -> attach to the kernel -> serve -> (unmounted) -> drain -> clean image

A crash never unmounts: the mountpoint then returns ENOTCONN until it is detached. Otherwise programs would see the
empty directory below, and go on writing there.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Final

import trio

from deferfs.device import Device
from deferfs.errors import DeferfsError, FsError, ImageError, MountFailedError
from deferfs.mount.daemon import logs
from deferfs.mount.daemon.fork import Handshake, raise_file_limit
from deferfs.mount.daemon.garbage import collect_briefly
from deferfs.mount.daemon.image import load_superblock, open_image
from deferfs.mount.daemon.notify import Notifier
from deferfs.mount.daemon.serve import Server
from deferfs.mount.daemon.signals import SIGNALS
from deferfs.mount.fuse.adapter import Adapter
from deferfs.mount.fuse.kernel_mount import KernelMount
from deferfs.mount.host import heap, syscalls
from deferfs.mount.host.budget import default_budget
from deferfs.mount.host.file_clock import FileClock, coarse
from deferfs.mount.host.options import MountOptions
from deferfs.mount.host.output_file import create_file
from deferfs.mount.host.process_status import being_killed
from deferfs.mount.runtime.runtime import Runtime
from deferfs.ondisk.superblock import STATE_ERRORS
from deferfs.store.io import run_job
from deferfs.store.memory import Memory
from deferfs.store.past import past_device
from deferfs.store.store import close_store, open_store
from deferfs.volume.volume import Volume

_log: Final = logging.getLogger(__name__)
_RANDOM_BYTES: Final = 1024
"""Random bytes per read from the kernel: one system call for 256 generations."""


def serve_mount(
    image: str,
    mountpoint: str,
    options: MountOptions,
    handshake: Handshake,
    *,
    foreground: bool,
    notice: Callable[[str], None],
) -> None:
    """Mount `image` on `mountpoint` (absolute paths) and serve it until it is unmounted.

    Calls `handshake.ready` when the mount is usable. DeferfsError if it never becomes usable.
    """
    logs.configure(foreground=foreground, file=options.log, instance=mountpoint)
    notifier = Notifier()
    raise_file_limit()
    heap.configure()
    _become_io_flusher()
    with ExitStack() as stack:
        notifier.status(f"opening {image}")
        device = open_image(image, writable=not options.read_only, notice=notice, is_wanted=handshake.is_wanted)
        stack.callback(device.close)
        shown: Device = device if options.at_tid is None else past_device(device, options.at_tid)
        file_clock = stack.enter_context(FileClock())
        runtime = Runtime(
            shown,
            load_volume(shown, options, partial(_warn, notice=notice, foreground=foreground), stamp=file_clock.now),
            commit_seconds=options.commit_seconds,
            gc_workers=options.gc_workers,
            poll_us=options.poll_us,
            discard=options.discard,
            background_reclaim=options.background_reclaim,
            being_killed=being_killed,
            create_file=create_file,
        )
        adapter = Adapter(
            runtime,
            options,
            enforce_lists=options.checks_permissions(os.geteuid()),
            stamped=file_clock.reach,
        )
        mount = KernelMount(image, mountpoint, options)
        held_back = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # they would leave a dead mount
        try:
            if not handshake.is_wanted():
                raise MountFailedError(f"{mountpoint}: the command that mounts was interrupted: not mounted")
            mount.attach(adapter)
        except BaseException:
            signal.pthread_sigmask(signal.SIG_SETMASK, held_back)
            run_job(shown, close_store(runtime.store))  # nothing has changed: clean as before
            raise
        if runtime.store.superblock.state & STATE_ERRORS:
            advice = f"{image}: marked as having errors; unmount it and repair it: deferfs fsck -y {image}"
            _warn(advice, notice=notice, foreground=foreground)
        server = Server(runtime, adapter, device, mount, handshake, notifier, handlers=options.handlers)
        collect_briefly()
        try:
            trio.run(server.run)
        except BaseExceptionGroup as group:
            raise _single(group) from group
        if (aborted := runtime.store.journal.aborted) is not None:
            raise ImageError(f"{image}: the journal was aborted ({aborted}): the last writes are lost")


def _warn(text: str, *, notice: Callable[[str], None], foreground: bool) -> None:
    """Warn the user who mounts, and the log; in the foreground both are standard error."""
    if not foreground:
        notice(text)
    _log.warning("%s", text)


def _become_io_flusher() -> None:
    try:
        syscalls.set_io_flusher()
    except OSError as error:
        _log.warning(
            "cannot become an IO flusher (%s): under extreme memory pressure the mount may deadlock",
            error.strerror,
        )


def load_volume(
    device: Device, options: MountOptions, warn: Callable[[str], None], *, stamp: Callable[[], int]
) -> Volume:
    """Open, and if needed recover, the filesystem on `device`. `warn` receives warnings for the user, `stamp` is the
    clock for the time stamps of files. ImageError or MountFailedError."""
    superblock = load_superblock(device)
    memory = Memory(options.memory_bytes or default_budget(warn))
    job = open_store(
        superblock, memory, clock=coarse, entropy=random_numbers(), stamp=stamp, read_only=options.read_only
    )
    try:
        store = run_job(device, job)
    except FsError as error:
        reason = error.detail or os.strerror(error.errno)
        hint = "" if error.errno == errno.EROFS else "; check it: deferfs fsck -n"
        raise MountFailedError(f"{device.name}: {reason}{hint}") from error
    except OSError as error:
        raise MountFailedError(f"{device.name}: {error.strerror}") from error
    except DeferfsError as error:
        raise MountFailedError(f"{device.name}: {error}") from error
    return Volume(
        store,
        evict=options.evict,
        gc_in_core=options.gc_in_core,
        atime=_atime_policy(options.flags),
        atime_of_directories=not options.flags & syscalls.MS_NODIRATIME,
        content_times=not options.writeback_cache or options.read_only,
    )


def _atime_policy(flags: int) -> str:
    if flags & syscalls.MS_NOATIME:
        return "none"
    return "strict" if flags & syscalls.MS_STRICTATIME else "relative"


def random_numbers() -> Callable[[], int]:
    """32 random bits at each call, for inode generations, read from the kernel in bulk because each read is slow."""

    def numbers() -> Iterator[int]:
        while True:
            yield from memoryview(os.urandom(_RANDOM_BYTES)).cast("I")

    return numbers().__next__


def _single(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The exception to report: an error meant for the user, else the first one."""
    leaves: list[BaseException] = []

    def collect(error: BaseException) -> None:
        if isinstance(error, BaseExceptionGroup):
            for inner in error.exceptions:
                collect(inner)
        else:
            leaves.append(error)

    collect(group)
    for error in leaves:
        if isinstance(error, DeferfsError):
            return error
    return leaves[0]
