"""A real volume in memory, and the model of its inodes beside it. Every step is a call: nothing runs by itself."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from deferfs.errors import FsError
from deferfs.limits import INODE_COST_BYTES
from deferfs.ondisk.inode import Inode
from deferfs.reclaim.inode import ActiveReference, InCoreInode, PassiveReference
from deferfs.reclaim.states import State
from deferfs.volume import attributes, namespace
from deferfs.volume.inactivation import Inactivation
from deferfs.volume.new_inode import NewInode
from tests.property.reclaim_model import File, Model
from tests.unit.volumes import FILE, ROOT, assert_sound, fresh_driver

EXTENT_BYTES = 1024
"""Written at every second step of this length: so many extents that an inactivation takes several transactions."""
SPARE_BLOCKS = 1500
"""More than any operation takes. A full disk would have the driver clean up by itself."""


CLEANUP_ROUNDS_MAX = 3
"""One for what idles, one for what is given up on the way; nothing takes more."""


@dataclass(eq=False)
class Handle:
    """An open file."""

    file: File
    reference: ActiveReference


@dataclass(eq=False)
class Watch:
    """A passive reference, and which in-core inode of the file it is to."""

    file: File
    incarnation: int
    reference: PassiveReference


@dataclass(eq=False)
class Job:
    """What a worker has taken, and how far it is."""

    file: File
    inode: InCoreInode
    inactivation: Inactivation | None = None


class World:
    """Each method does one thing to both, the volume and the model."""

    def __init__(self) -> None:
        plain = fresh_driver()
        self.driver = plain
        self.cleanup = plain.engine.cleanup
        self.volume = plain.volume
        self.cache = self.volume.inodes
        self.gc = self.volume.gc
        self.model = Model()
        self.names: dict[bytes, File] = {}
        self.jobs: list[Job] = []
        self.watches: list[Watch] = []
        self.handles: list[Handle] = []
        self.records_at_start = self.volume.store.inodes.used
        self.free_at_start = attributes.statfs(self.volume).free
        self.freed_total = 0
        self._volume_freed, self.cache.on_freed = self.cache.on_freed, self._freed

    def _freed(self, ino: int) -> None:
        """In-core inodes that were freed are counted."""
        self.freed_total += 1
        self._volume_freed(ino)

    @property
    def takes_more(self) -> bool:
        """Whether there is space for another file or write."""
        return self.volume.store.space.free_blocks > SPARE_BLOCKS

    # --- names and data ---
    def create(self, name: bytes, extents: int) -> None:
        """A file of so many extents, which the kernel knows."""
        record = self.driver.run(namespace.create, self.volume, ROOT, name, NewInode(FILE))
        file = File(record.ino, record.generation)
        self.model.files.append(file)
        self.names[name] = file
        self.look_up(name, 1)
        for number in range(extents):
            self.driver.write(file.ino, number * 2 * EXTENT_BYTES, bytes(EXTENT_BYTES))

    def look_up(self, name: bytes, count: int) -> None:
        file = self.names[name]
        record = self.driver.run(namespace.lookup, self.volume, ROOT, name)
        assert (record.ino, record.generation) == (file.ino, file.generation)
        self.volume.lookup_count(record, count)
        self.model.take(file, lookups=count)

    def link(self, name: bytes, new: bytes) -> None:
        file = self.names[name]
        self.driver.run(namespace.link, self.volume, file.ino, ROOT, new)
        file.links += 1
        self.names[new] = file

    def unlink(self, name: bytes) -> None:
        file = self.names.pop(name)
        due = self.model.unlink(file)
        self.driver.run(namespace.unlink, self.volume, ROOT, name)
        self.model.dispose([file] if due else [])

    def read(self, file: File) -> None:
        """Only the access time matters here."""
        attributes.accessed(self.volume, self.driver.run(lambda plan: self.volume.store.inodes.get(plan, file.ino)))

    def append(self, file: File, length: int) -> None:
        """Write to a file with an active reference; a long one gets speculative blocks."""
        size = self.driver.run(lambda plan: self.volume.store.inodes.get(plan, file.ino)).size
        self.driver.write(file.ino, size, bytes(length))

    # --- references ---
    def forget(self, forgotten: list[tuple[File, int]]) -> None:
        """One BATCH_FORGET message."""
        due = [file for file, count in forgotten if self.model.drop(file, lookups=count)]
        found = [self.cache.forget(file.ino, count) for file, count in forgotten]
        self.driver.dispose([inode for inode in found if inode is not None])
        self.model.dispose(due)

    def open(self, file: File) -> None:
        self.handles.append(Handle(file, self.cache.hold(file.ino, file.generation)))
        self.model.take(file, handles=1)

    def close(self, handle: Handle) -> None:
        self.handles.remove(handle)
        due = self.model.drop(handle.file, handles=1)
        found = handle.reference.release()
        assert (found is not None) == due
        self.driver.dispose([found] if found is not None else [])
        self.model.dispose([handle.file] if due else [])

    def watch(self, file: File) -> None:
        self.watches.append(Watch(file, file.incarnation, self.cache.passive(self.cache.table[file.ino])))

    def unwatch(self, watch: Watch) -> None:
        self.watches.remove(watch)
        watch.reference.release()

    def try_activate(self, watch: Watch) -> None:
        """From passive to active: not for a freed inode, nor for an orphan without an active reference."""
        file = watch.file
        possible = watch.incarnation == file.incarnation and (file.active or not file.orphan)
        reference = watch.reference.try_activate()
        assert (reference is not None) == possible
        if reference is not None:
            self.handles.append(Handle(file, reference))
            self.model.take(file, handles=1)

    # --- pressure, and the switches ---
    def shrink(self, wanted: int, due_max: int) -> None:
        """Direct reclaim of so many inodes."""
        needy = {file for file in self.model.idle if self.cache.table[file.ino].needs_inactivation}
        _, due = self.cache.shrink(wanted * INODE_COST_BYTES, due_max)
        self.driver.dispose(due)
        self.model.evict(wanted, due_max, needy)

    def switch(self, policy: str) -> None:
        self.volume.set_policy(policy)
        self.model.waits = policy == "inline"

    def stop(self) -> None:
        """Workers leave off between two steps, as for a freeze."""
        next(self.cleanup.stop(), None)
        self.model.stopped = True
        while self.jobs:
            job = self.jobs.pop()
            self.gc.leave_off(job.inode)
            self.model.interrupted(job.file)

    def start(self) -> None:
        self.cleanup.resume()
        self.model.stopped = False

    # --- inodegc, a step at a time ---
    def take(self, count_max: int, queue: int) -> None:
        """A worker takes a batch."""
        if self.model.stopped:
            return
        batch = self.gc.take(count_max, queue % len(self.gc.queues))
        assert [inode.ino for inode in batch] == sorted(inode.ino for inode in batch)
        for inode in batch:
            file = self.file_of(inode)
            assert file.state is State.QUEUED
            self.jobs.append(Job(file, inode))

    def step(self, job: Job) -> None:
        """One transaction of an inactivation; the first one begins it."""
        if job.inactivation is None:
            inactivation = Inactivation(self.cache, job.inode)
            if job.inode is not self.cache.table.get(job.inode.ino):
                # live again after it was taken, then evicted: what has the number now is another object
                assert not inactivation.begin()
                self._end(job)
                return
            begun = inactivation.begin()
            assert begun == self.model.begin(job.file)
            if begun:
                job.inactivation = inactivation
            else:
                self._end(job)
            return
        runs = job.inode.state is State.INACTIVATING
        if not runs or self.driver.run_reserved(job.inactivation.step):
            job.inactivation.finish()
            if runs:
                self.model.cleaned(job.file)
            self._end(job)

    def _end(self, job: Job) -> None:
        self.jobs.remove(job)
        self.gc.done(job.inode)

    def fail(self, job: Job) -> None:
        """As when a step met an IO error."""
        if job.inactivation is None:
            self.step(job)
            if job not in self.jobs:
                return
        self.jobs.remove(job)
        self.gc.failed(job.inode)
        self.model.failed(job.file)

    def retry(self) -> None:
        self.gc.retry_now()
        self.model.retry()

    def readmit(self) -> None:
        self.gc.release_quarantine()
        self.model.readmit()

    def file_of(self, inode: InCoreInode) -> File:
        return next(file for file in self.model.files if (file.ino, file.generation) == (inode.ino, inode.generation))

    # --- what must hold after every step ---
    def check(self) -> None:
        in_memory = [file for file in self.model.files if file.state is not None]
        assert len(self.cache.table) == len(in_memory)
        passive = self._passive_references()
        for file in in_memory:
            self._check_in_core(file, self.cache.table[file.ino], passive)
        for file in self.model.files:
            self._check_on_disk(file)
        self._check_totals(in_memory)
        self._check_nothing_is_lost()

    def _check_in_core(self, file: File, inode: InCoreInode, passive: Counter[int]) -> None:
        assert inode.generation == file.generation
        assert inode.state is file.state
        assert (inode.lookups, inode.active_tokens) == (file.lookups, file.handles)
        assert inode.orphan == file.orphan
        assert inode.failures == file.failures
        assert (inode.state is State.LIVE) == file.active
        assert inode.passive == 2 + passive[id(inode)]

    def _passive_references(self) -> Counter[int]:
        """The references to each in-core inode, found by an exhaustive search, not by counting along."""
        found: Counter[int] = Counter()
        for queue in self.gc.queues:
            inode = queue.head
            while inode is not None:
                assert inode.queue is queue
                found[id(inode)] += 1
                inode = inode.following
        found.update(id(inode) for inode in self.gc.urgent)
        found.update(id(inode) for _, _, inode in self.gc.delayed)
        found.update(id(job.inode) for job in self.jobs)
        current = [watch for watch in self.watches if watch.incarnation == watch.file.incarnation]
        found.update(id(self.cache.table[watch.file.ino]) for watch in current)
        return found

    def _check_on_disk(self, file: File) -> None:
        def look(record: Inode) -> tuple[int, int]:
            return record.generation, record.nlink

        try:
            generation, links = self.driver.run(lambda plan: look(self.volume.store.inodes.get(plan, file.ino)))
        except FsError:
            assert not file.exists
            return
        if file.exists:
            assert (generation, links) == (file.generation, file.links)
        else:
            assert generation != file.generation

    def _check_totals(self, in_memory: list[File]) -> None:
        existing = [file for file in self.model.files if file.exists]
        assert self.volume.store.inodes.used == self.records_at_start + len(existing)
        assert self.volume.store.orphans.count == sum(file.orphan for file in existing)
        assert self.cache.inactivated_total == self.model.inactivated
        assert self.freed_total == self.model.freed
        assert self.cache.held_orphans == sum(file.orphan and file.active for file in in_memory)
        assert self.gc.running == len(self.jobs)
        due = (State.QUEUED, State.NEED_INACTIVE, State.INACTIVATING)
        blocks = sum(inode.pending_blocks for inode in self.cache.table.values() if inode.orphan and inode.state in due)
        assert self.cache.pending_blocks == blocks
        states, gauges = Counter(inode.state for inode in self.cache.table.values()), self.cache.statistics()
        assert (
            gauges.cached
            == len(self.cache.table)
            == gauges.active + gauges.idle + gauges.queued + (gauges.inactivating + gauges.quarantined)
        )
        assert (gauges.active, gauges.idle) == (states[State.LIVE], states[State.IDLE])
        assert gauges.queued == states[State.QUEUED] + states[State.NEED_INACTIVE]
        assert (gauges.inactivating, gauges.quarantined) == (states[State.INACTIVATING], states[State.QUARANTINED])

    def _check_nothing_is_lost(self) -> None:
        """Every inode being evicted is where a worker will find it."""
        taken = {id(job.inode) for job in self.jobs}
        queued = taken | {id(inode) for inode in self.gc.urgent}
        delayed = {id(inode) for _, _, inode in self.gc.delayed}
        for inode in self.cache.table.values():
            if inode.state is State.QUEUED:
                assert id(inode) in queued or (inode.waiting and inode.queue is not None)
            elif inode.state is State.NEED_INACTIVE:
                assert id(inode) in delayed
            elif inode.state is State.INACTIVATING:
                assert id(inode) in taken

    # --- the end ---
    def end(self) -> None:
        """Everything is let go, cleaned up and deleted: all counts are zero, and the volume is as it was when it was
        new."""
        self.start()
        self.switch("deferred")
        for handle in list(self.handles):
            self.close(handle)
        for watch in list(self.watches):
            self.unwatch(watch)
        for name in list(self.names):
            self.unlink(name)
        held = [(file, file.lookups) for file in self.model.files if file.lookups]
        self.forget(held)
        self.check()
        for _ in range(CLEANUP_ROUNDS_MAX):
            self._clean_up()
        self.check()
        assert not self.cache.table
        assert self.gc.backlog == 0
        assert self.cache.pending_blocks == self.cache.held_orphans == 0
        assert not self.cache.lru
        assert self.model.freed_on_disk == len(self.model.files)
        self.driver.commit()
        self.driver.checkpoint()
        assert_sound(self.driver)
        assert attributes.statfs(self.volume).free == self.free_at_start

    def _clean_up(self) -> None:
        """A round of everything that brings inodes on their way out further."""
        self.shrink(1 << 20, 1 << 20)
        self.readmit()
        self.retry()
        for queue in range(len(self.gc.queues)):
            self.take(1 << 20, queue)
        for job in list(self.jobs):
            while job in self.jobs:
                self.step(job)
