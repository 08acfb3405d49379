"""Serving a mount: the FUSE loop, the control socket, and the shutdown.

Two nurseries: the outer one (runtime, control socket) lives until the image is clean, the inner one (FUSE loop) until
the kernel has released the mount.
"""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

import trio

from deferfs.contract.answers import ImageIdentity, Outcome
from deferfs.contract.inode_report import InodeReport
from deferfs.contract.settings import FREEZE, READ_ONLY
from deferfs.contract.statistics import Statistics
from deferfs.device.identity import Identity
from deferfs.errors import DeferfsError, FsError, MountFailedError
from deferfs.limits import HANDLERS_MAX, MIB
from deferfs.mount.control import settings, statistics, why
from deferfs.mount.control.server import ControlServer
from deferfs.mount.daemon import diagnostics
from deferfs.mount.daemon.fork import Handshake
from deferfs.mount.daemon.idle_heap import trim_when_idle
from deferfs.mount.daemon.notify import Notifier
from deferfs.mount.daemon.self_unmount import Mounts, SelfUnmount
from deferfs.mount.daemon.signals import handle_signals
from deferfs.mount.fuse import loop
from deferfs.mount.fuse.kernel_cache import KernelCache
from deferfs.mount.host.pressure import open_sources
from deferfs.mount.runtime.pressure_watch import PressureWatch
from deferfs.mount.runtime.runtime import Runtime
from deferfs.ondisk.superblock import STATE_CLEAN, STATE_ERRORS

if TYPE_CHECKING:
    from deferfs.mount.runtime.busy_poll import BusyPoll

T = TypeVar("T")
_log: Final = logging.getLogger(__name__)

READER_BYTES: Final = 2 * MIB
"""Memory of a reader of requests during a WRITE: libfuse's buffer, and pyfuse3's copy."""
READERS_FEW: Final = 24
"""Minimum of readers with any budget: the number of requests that can wait before the daemon stops reading others."""
ANSWER_SECONDS_MAX: Final = 5.0
"""How long the shutdown waits for control clients to receive the final state of the image."""
QUIET_SECONDS: Final = 0.05
"""Time without a WRITE after which the kernel's writeback counts as complete."""
QUIET_SECONDS_MAX: Final = 10.0
"""Timeout of the wait for the kernel's writeback."""
EXTEND_SECONDS: Final = 30.0
"""How far the stop timeout of systemd is extended at a time."""
EXTEND_POLL_SECONDS: Final = 10.0
"""Interval between extensions of the stop timeout."""


def readers_max(budget_bytes: int) -> int:
    """How many requests may be in flight so that their buffers fit into the budget."""
    return max(READERS_FEW, min(HANDLERS_MAX, budget_bytes // READER_BYTES))


class Image(Protocol):
    """The interface of the image file used here."""

    def identity(self) -> Identity:
        """Device and inode number, which do not depend on its name."""

    def names(self) -> int:
        """Number of its hard links."""


class AttachedMount(Mounts, Protocol):
    """The interface of a `KernelMount` used here."""

    image: str
    mountpoint: str
    fd: int
    """Readable when requests are queued."""

    def sync(self) -> bool:
        """Make the kernel write back its dirty pages; False when no mount can be reached. OSError."""

    def set_read_only(self, read_only: bool) -> None:
        """Make the kernel refuse changes, or allow them. OSError."""


class Handlers(Protocol):
    """The interface of the adapter used here."""

    invalidate_attributes: Callable[[int], None]
    writes_total: int
    writes_in_flight: int

    def open_inodes(self) -> list[int]:
        """The inodes with open handles."""


class RequestLoop(Protocol):
    """The FUSE loop, and notifications to the kernel (the module `fuse.loop`)."""

    async def serve(self, busy_poll: BusyPoll, handlers: int) -> None:
        """Serve until the kernel releases the mount, or `terminate` is called."""

    def terminate(self) -> None:
        """Make `serve` return."""

    def close(self) -> None:
        """Close the FUSE device."""

    def invalidate_entry(self, parent: int, name: bytes) -> None:
        """Make the kernel drop a directory entry. OSError; may block."""

    def invalidate_attributes(self, ino: int) -> None:
        """Make the kernel ask for the attributes of an inode again."""

    def invalidate_contents(self, inodes: list[int]) -> None:
        """Make the kernel write back and drop its pages of these inodes; blocks."""


class Server:
    """One attached mount. `run` serves it to its end."""

    def __init__(
        self,
        runtime: Runtime,
        adapter: Handlers,
        image: Image,
        mount: AttachedMount,
        handshake: Handshake,
        notifier: Notifier,
        *,
        handlers: int | None = None,
        requests: RequestLoop = loop,
    ) -> None:
        """`handlers`: maximum of requests handled at once; None: as many as fit into the budget."""
        self._runtime = runtime
        self._handlers = handlers or readers_max(runtime.store.memory.limit_bytes)
        self._adapter = adapter
        self._requests = requests
        self._image = image
        self._mount = mount
        self._mounted_read_only = runtime.store.read_only
        self._handshake = handshake
        self._notifier = notifier
        self._started = time.monotonic()
        self._stopping = False
        self._failure: DeferfsError | None = None
        """Why the mount never became usable; None otherwise."""
        self._control: ControlServer | None = None
        self._closed = trio.Event()

    async def run(self) -> None:
        """Serve until the kernel releases the mount, then close the image. DeferfsError if it never became usable."""
        self._runtime.incoming.watch(self._mount.fd)
        cache = KernelCache(
            self._runtime.volume, self._runtime.run_reserved, self._mount.fd, self._requests.invalidate_entry
        )
        self._runtime.reclaimer.kernel_cache = cache
        self._adapter.invalidate_attributes = self._requests.invalidate_attributes
        async with trio.open_nursery() as nursery:
            await self._runtime.start(nursery)
            self._runtime.pressure = PressureWatch(open_sources(), self._runtime.engine.reclaim.under_pressure)
            nursery.start_soon(self._runtime.pressure.run)
            nursery.start_soon(trim_when_idle, lambda: self._runtime.requests.events)
            ending = SelfUnmount(self._mount, self._collect, self._requests.terminate)
            nursery.start_soon(handle_signals, ending, lambda: diagnostics.report(self.statistics()))
            async with trio.open_nursery() as serving:
                serving.start_soon(self._serve_requests, serving.cancel_scope)
                serving.start_soon(self._announce, nursery)
            self._stopping = True
            self._runtime.incoming.unwatch(self._mount.fd)
            cache.released()
            self._requests.close()
            await self._close()
            self._closed.set()
            if self._control is not None:
                with trio.move_on_after(ANSWER_SECONDS_MAX):
                    await self._control.idle()
            nursery.cancel_scope.cancel()
        if self._failure is not None:
            raise self._failure

    async def _serve_requests(self, scope: trio.CancelScope) -> None:
        await self._requests.serve(self._runtime.busy_poll, self._handlers)
        scope.cancel()

    async def _announce(self, nursery: trio.Nursery) -> None:
        """Report that the mount is usable; if it is not, unmount it: no process has used it yet."""
        try:
            await self._become_usable(nursery)
        except DeferfsError as error:
            self._failure = error
        except OSError as error:
            self._failure = MountFailedError(f"{self._mount.mountpoint}: no control socket: {error.strerror or error}")
        if self._failure is not None:
            for obstacle in await _in_thread(self._mount.detach):
                _log.warning("%s", obstacle)
            if self._mount.is_alive():
                self._requests.terminate()

    async def _become_usable(self, nursery: trio.Nursery) -> None:
        """Send a first request ourselves: when it is answered, the mount is usable."""
        try:
            found = await trio.to_thread.run_sync(os.stat, self._mount.mountpoint, abandon_on_cancel=True)
        except OSError as error:
            raise MountFailedError(
                f"{self._mount.image}: the root directory cannot be read: {error.strerror}; check it: deferfs fsck -n"
            ) from error
        self._runtime.timeline.own_device = found.st_dev
        device = f"{os.major(found.st_dev)}:{os.minor(found.st_dev)}"
        self._control = ControlServer(self, device)
        await nursery.start(self._serve_control, self._control)
        _log.info("mounted %s", self._mount.image)
        self._notifier.ready(f"serving {self._mount.image} on {self._mount.mountpoint}")
        if not await trio.to_thread.run_sync(self._handshake.ready, abandon_on_cancel=True):
            raise MountFailedError(f"{self._mount.mountpoint}: the command that mounted was interrupted: not mounted")

    async def _serve_control(self, server: ControlServer, *, task_status: trio.TaskStatus[None]) -> None:
        async with server.listening() as listener:
            task_status.started()
            await server.serve(listener)

    # --- requests of the control socket ---
    def state(self) -> str:
        """`serving`, or `stopping` once the kernel has released the mount: also while handlers still clean up."""
        return "stopping" if self._stopping or not self._mount.is_alive() else "serving"

    def identity(self) -> ImageIdentity:
        """Device and inode number of the open image."""
        device, inode = self._image.identity()
        return ImageIdentity(device=device, inode=inode, names=self._image.names(), pid=os.getpid())

    async def outcome(self) -> Outcome:
        """Wait until the image has been closed; returns its final state."""
        await self._closed.wait()
        store = self._runtime.store
        state = store.superblock.state
        aborted = store.journal.aborted
        image = self.identity()
        return Outcome(
            device=image.device,
            inode=image.inode,
            names=image.names,
            pid=image.pid,
            clean=bool(state & STATE_CLEAN) or self._mounted_read_only,
            errors=bool(state & STATE_ERRORS) or self._runtime.corruptions_total > 0,
            problem="" if aborted is None else str(aborted),
        )

    def statistics(self) -> Statistics:
        """Current statistics."""
        uptime = time.monotonic() - self._started
        served = statistics.Served(self._mount.image, self._mount.mountpoint, os.getpid(), uptime, self._handlers)
        return statistics.snapshot(self._runtime, served)

    async def explain(self, ino: int) -> InodeReport:
        """Why an inode has not been freed."""
        return await why.explain(self._runtime, ino)

    async def sync(self) -> None:
        """Make everything durable that the kernel had begun to write back before the call."""
        await self._wait_quiet()
        await self._runtime.sync()

    async def set(self, key: str, value: str) -> str:
        """Change one setting."""
        if key == READ_ONLY.key:
            return await self._set_read_only(value)
        if key == FREEZE.key and FREEZE.change(value):
            # the kernel's dirty pages must be written back before the freeze
            try:
                reached = await _in_thread(self._mount.sync)
            except OSError as error:
                detail = f"the kernel's dirty pages could not be written: {error.strerror}"
                raise FsError(error.errno or errno.EIO, f"not frozen: {detail}") from error
            await (self._wait_quiet() if reached else self._collect())
        return await settings.control(self._runtime, key, value)

    async def _set_read_only(self, value: str) -> str:
        """Becoming read-only, the kernel refuses changes first; becoming writable, it allows them last."""
        wanted = READ_ONLY.change(value)
        if not wanted:
            answer = await settings.control(self._runtime, READ_ONLY.key, value)
        try:
            await _in_thread(lambda: self._mount.set_read_only(wanted))
        except OSError as error:
            busy = "; files are open for writing, or deleted ones are open" if error.errno == errno.EBUSY else ""
            raise FsError(error.errno or errno.EIO, f"cannot remount: {error.strerror}{busy}") from error
        if not wanted:
            return answer
        await self._wait_quiet()
        try:
            return await settings.control(self._runtime, READ_ONLY.key, value)
        except FsError:
            await _in_thread(lambda: self._mount.set_read_only(False))
            raise

    # --- the kernel's dirty pages ---
    async def _collect(self) -> None:
        """Make the kernel write back the dirty pages of each open file without a path to it: when nothing is mounted
        any more, or only in other mount namespaces. Invalidating a file's pages makes the kernel write the dirty ones
        first, and wait for that; only open files have any.
        """
        self._runtime.volume.content_times = True  # the times that the kernel keeps are not written with the pages
        await _in_thread(lambda: self._requests.invalidate_contents(self._adapter.open_inodes()))
        await self._wait_quiet()

    async def _wait_quiet(self) -> None:
        """Wait until no WRITE has been in flight for a moment: syncfs does not wait for the writes that it starts."""
        adapter = self._adapter
        with trio.move_on_after(QUIET_SECONDS_MAX):
            while True:
                before = adapter.writes_total
                await trio.sleep(QUIET_SECONDS)
                if adapter.writes_total == before and not adapter.writes_in_flight:
                    return

    # --- shutdown ---
    async def _close(self) -> None:
        self._notifier.stopping()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._extend_timeout)
            await self._runtime.close()
            nursery.cancel_scope.cancel()
        _log.info("unmounted %s", self._mount.image)

    async def _extend_timeout(self) -> None:
        while True:
            self._notifier.extend_timeout(EXTEND_SECONDS)
            await trio.sleep(EXTEND_POLL_SECONDS)


async def _in_thread(function: Callable[[], T]) -> T:
    return await trio.to_thread.run_sync(function)
