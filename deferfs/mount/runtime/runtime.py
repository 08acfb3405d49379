"""One mounted volume: its components, built from the bottom up, and their interface for requests.

The engine takes the decisions while operations wait (`volume/engine.py`); the components await what it waits for, and
run the background tasks. Each is given only the components that it uses.

    Instruments   observe all others                        TaskDriver    runs the tasks of the engine
    Committer     commits and checkpoints                   Executor      operations
    FileData      contents of files, durability             DataWriter    early writeout of file data
    Turns         when inodegc's transactions run
    GcWorkers     the pool that takes from the queues       Payer         writes owed access times
    BlockGc       blocks past EOF                           Eviction      from the last reference to the policy
    Forgets       FORGET messages                           Reclaimer     background memory reclaim
    Admission     throttles what adds to the backlog        Freezer, Closing
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from deferfs.limits import POLL_US_DEFAULT
from deferfs.mount.runtime.blockgc import BlockGc
from deferfs.mount.runtime.busy_poll import BusyPoll
from deferfs.mount.runtime.closing import Closing
from deferfs.mount.runtime.committer import Committer
from deferfs.mount.runtime.driving import TaskDriver
from deferfs.mount.runtime.eviction import Eviction
from deferfs.mount.runtime.executor import Executor
from deferfs.mount.runtime.file_data import FileData
from deferfs.mount.runtime.forgets import Forgets
from deferfs.mount.runtime.freezer import Freezer
from deferfs.mount.runtime.gc_workers import GcWorkers
from deferfs.mount.runtime.incoming import IncomingRequests
from deferfs.mount.runtime.instruments import Instruments
from deferfs.mount.runtime.payer import Payer
from deferfs.mount.runtime.pressure_watch import PressureWatch
from deferfs.mount.runtime.reclaimer import Reclaimer
from deferfs.mount.runtime.samples import samples
from deferfs.mount.runtime.throttle import Admission
from deferfs.mount.runtime.timeline import create_no_file
from deferfs.mount.runtime.turns import Turns
from deferfs.mount.runtime.write_out import DataWriter
from deferfs.volume.engine import Engine

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
        """`being_killed` tells whether a thread is being killed, `create_file` creates a file for a timeline: both need
        the system outside the volume."""
        self.device = device
        self.volume = volume
        self.store = volume.store
        instruments = Instruments(lambda: samples(volume), create_file, strict=strict)
        self.timeline, self.activity = instruments.timeline, instruments.activity
        self.waits, self.requests, self.checker = instruments.waits, instruments.requests, instruments.checker
        self.incoming = IncomingRequests()
        self.busy_poll = BusyPoll(poll_us)

        self.engine = engine = Engine(device, volume, self.checker)
        engine.measure = self.waits.measure
        tasks = TaskDriver(device, instruments)
        self.drive = drive = tasks.drive
        self.write_back = write_back = engine.write_back
        write_back.commit_seconds, write_back.discard = commit_seconds, discard
        self.committer = Committer(device, engine, tasks, instruments)
        self.data_writer = DataWriter(engine, tasks, instruments)
        executor = Executor(engine, drive)
        turns = Turns(engine, tasks, instruments, self.incoming)
        self.payer = Payer(engine, tasks, instruments, turns)
        self.workers = GcWorkers(engine, tasks, instruments, turns, gc_workers)
        self.blockgc = BlockGc(engine, tasks)
        eviction = Eviction(engine, drive)
        self.forgets = Forgets(engine, drive)
        self.reclaimer = Reclaimer(engine, tasks)
        engine.reclaim.works = background_reclaim
        self.throttle = Admission(engine, tasks, being_killed)
        self.freezer = Freezer(engine, tasks, being_killed)
        self.closing = Closing(engine, drive, self.freezer)
        tasks.unread = self._has_unread_forgets
        self.pressure = PressureWatch([], engine.reclaim.under_pressure)
        """Pressure events from the kernel; none without a mount."""

        # called by requests directly, without a wrapper
        files = FileData(engine, tasks, instruments, executor)
        self.run, self.run_reserved, self.until_done = executor.run, executor.run_reserved, executor.until_done
        self.read, self.readlink, self.write = files.read, files.readlink, files.write
        self.sync, self.fsync = files.sync, files.fsync
        self.forget, self.release = self.forgets.forget, eviction.release
        self.note = engine.note

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
            nursery.start_soon(self.data_writer.run)
            nursery.start_soon(self.freezer.run)

    async def close(self) -> None:
        """Unmount: no FORGETs will come. Inactivate, write everything home, mark the image clean."""
        await self.closing.close()
        await self.timeline.stop()

    @property
    def corruptions_total(self) -> int:
        """Damaged blocks and records found by operations."""
        return self.engine.corruptions_total

    def _has_unread_forgets(self) -> bool:
        return self.incoming.pending() or self.forgets.waiting > 0
