"""One mounted volume: its parts, built from the bottom up, and what requests need of them.

Each part takes what it uses, by itself or as a narrow protocol; none takes the whole. The one recursion there is (an
operation waits for memory or space, which takes further operations) is closed by `Executor.connect`.

    Instruments   observe all others
    Committer     commits, checkpoints, durability          Grants        waits for log space
    Executor      operations                                FileData      contents of files
    Cleanup       one inactivation after the other          Payer         access times that are owed
    GcWorkers     the pool that takes from the queues       BlockGc       blocks past EOF
    Eviction      from the last reference to the policy     Forgets       FORGET messages
    Reclaimer     memory                                    SpaceReclaimer  free blocks
    Throttle      holds back what adds to the backlog       Freezer, Closing
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from deferfs.limits import POLL_US_DEFAULT
from deferfs.mount.runtime.blockgc import BlockGc
from deferfs.mount.runtime.busy_poll import BusyPoll
from deferfs.mount.runtime.cleanup import Cleanup
from deferfs.mount.runtime.closing import Closing
from deferfs.mount.runtime.committer import Committer
from deferfs.mount.runtime.eviction import Eviction
from deferfs.mount.runtime.executor import Executor
from deferfs.mount.runtime.file_data import FileData
from deferfs.mount.runtime.forgets import Forgets
from deferfs.mount.runtime.freezer import Freezer
from deferfs.mount.runtime.gc_workers import GcWorkers
from deferfs.mount.runtime.grants import Grants
from deferfs.mount.runtime.incoming import IncomingRequests
from deferfs.mount.runtime.instruments import Instruments
from deferfs.mount.runtime.payer import Payer
from deferfs.mount.runtime.pressure_watch import PressureWatch
from deferfs.mount.runtime.reclaimer import Reclaimer
from deferfs.mount.runtime.samples import samples
from deferfs.mount.runtime.space import SpaceReclaimer
from deferfs.mount.runtime.throttle import Throttle
from deferfs.mount.runtime.timeline import create_no_file
from deferfs.mount.runtime.urgency import Urgency

if TYPE_CHECKING:
    import trio

    from deferfs.device.base import Device
    from deferfs.volume.volume import Volume


class Runtime:
    """Runs one volume. `strict` makes a wait in reclaim context fatal (tests, under the deferred policy)."""

    def __init__(
        self,
        device: Device,
        volume: Volume,
        *,
        commit_seconds: float = 5,
        gc_workers: int = 2,
        poll_us: int = POLL_US_DEFAULT,
        discard: bool = False,
        background_reclaim: bool = True,
        strict: bool = False,
        being_killed: Callable[[int], bool] = lambda _pid: False,
        create_file: Callable[[str], int] = create_no_file,
    ) -> None:
        """`being_killed` tells whether a thread is, `create_file` opens a new file for a timeline: both ask the system
        about what lies outside of the volume."""
        self.device = device
        self.volume = volume
        self.store = store = volume.store
        instruments = Instruments(lambda: samples(volume), create_file, strict=strict)
        self.timeline, self.activity = instruments.timeline, instruments.activity
        self.waits, self.requests, self.checker = instruments.waits, instruments.requests, instruments.checker
        self.incoming = IncomingRequests()
        self.busy_poll = BusyPoll(poll_us)

        self.committer = Committer(device, store, instruments, commit_seconds=commit_seconds, discard=discard)
        self.grants = Grants(store.journal, self.committer, instruments)
        self.circles = self.grants.circles
        self.executor = Executor(device, volume, instruments, self.committer, self.grants)
        run_reserved = self.executor.run_reserved
        urgency = Urgency(volume.gc, store.memory, store.space)
        self.cleanup = Cleanup(volume, run_reserved, instruments, self.committer, urgency, self.incoming)
        self.payer = Payer(volume, run_reserved, instruments, self.committer, self.cleanup)
        self.workers = GcWorkers(volume, run_reserved, instruments, self.cleanup, self.payer, urgency, gc_workers)
        self.blockgc = BlockGc(volume, run_reserved)
        eviction = Eviction(volume, instruments, self.cleanup, self.blockgc)
        self.forgets = Forgets(volume, self.checker, eviction.place)
        self.reclaimer = Reclaimer(
            volume, instruments, self.committer, eviction, self.payer, self.workers.push, works=background_reclaim
        )
        self.throttle = Throttle(volume.gc, self._pending_bytes, self.workers, instruments, being_killed)
        self.freezer = Freezer(device, store, self.checker, self.committer, self.workers, being_killed)
        self.space = SpaceReclaimer(
            volume, instruments, self.committer, self.blockgc, self.workers, self.freezer, self._has_unread_forgets
        )
        self.executor.connect(eviction, self.reclaimer, self.space, self.freezer)
        self.closing = Closing(
            device, volume, self.committer, self.forgets, self.blockgc, self.workers, self.freezer, self._is_damaged
        )
        self.pressure = PressureWatch([], self.reclaimer.under_pressure)
        """What the kernel reports; without a mount, nothing."""

        self.committer.when_done.append(self.grants.serve)
        self.committer.when_memory_changed.append(self.reclaimer.look)
        self.cleanup.when_progressed.append(self.throttle.progress)
        self.cleanup.when_stopped.append(self.throttle.release)
        urgency.waiters.append(lambda: self.throttle.waiting)

        # what requests need, without a call in between
        files = FileData(self.executor)
        self.run, self.run_reserved = self.executor.run, run_reserved
        self.read, self.readlink, self.write = files.read, files.readlink, files.write
        self.sync, self.fsync = self.committer.sync, self.committer.fsync
        self.forget, self.release = self.forgets.forget, eviction.release
        self.note = self.executor.note

    async def start(self, nursery: trio.Nursery) -> None:
        """Start the background tasks."""
        self.forgets.start(nursery)
        nursery.start_soon(self.timeline.run)
        if not self.store.read_only:
            self.committer.start(nursery)
            nursery.start_soon(self.reclaimer.run)
            self.workers.start(nursery)
            nursery.start_soon(self.payer.run)
            nursery.start_soon(self.blockgc.run)
            nursery.start_soon(self.freezer.run)

    async def close(self) -> None:
        """Unmount: no FORGET will come. Inactivate, write everything home, mark the image clean."""
        await self.closing.close()
        await self.timeline.stop()

    @property
    def corruptions_total(self) -> int:
        """Damage that operations have met."""
        return self.executor.corruptions_total

    def _pending_bytes(self) -> int:
        return self.volume.inodes.pending_blocks * self.store.fmt.block_size

    def _is_damaged(self) -> bool:
        return self.executor.corruptions_total > 0

    def _has_unread_forgets(self) -> bool:
        return self.incoming.pending() or self.forgets.waiting > 0
