"""Why an inode is not freed, through its life."""

from __future__ import annotations

import pytest

from deferfs.contract.inode_report import InCore, InodeReport, QueuePosition, Record, References
from deferfs.errors import FsError
from deferfs.mount.control.why import explain
from deferfs.store.plan import Plan
from deferfs.volume.inactivation import Inactivation
from tests.unit.mount.fuse.requests import context
from tests.unit.mount.kernels import ROOT, Kernel


async def ask(kernel: Kernel, ino: int) -> tuple[InodeReport, str]:
    report = await explain(kernel.runtime, ino)
    assert report.inode == ino
    return report, "\n".join(report.reasons)


def in_core(report: InodeReport) -> InCore:
    assert report.memory is not None
    return report.memory


def record(report: InodeReport) -> Record:
    assert report.record is not None
    return report.record


async def test_from_open_to_gone(kernel: Kernel) -> None:
    ino, fh = await kernel.create(b"file")
    await kernel.adapter.write(fh, 0, bytes(50_000))
    report, reasons = await ask(kernel, ino)
    assert record(report).links == 1
    assert "it has 1 names" in reasons
    await kernel.adapter.unlink(ROOT, b"file", context())
    report, reasons = await ask(kernel, ino)
    found = record(report)
    assert (found.links, found.size_bytes, found.orphan_slot) == (0, 50_000, 0)
    assert in_core(report).state == "LIVE"
    assert in_core(report).references == References(lookups=1, handles_and_operations=1, passive=2)
    assert "1 lookups not forgotten yet" in reasons
    assert "1 open handles or operations" in reasons
    await kernel.adapter.release(fh)
    await kernel.runtime.workers.stop()
    await kernel.adapter.forget([(ino, 1)])
    report, reasons = await ask(kernel, ino)
    assert in_core(report).state == "QUEUED"
    assert in_core(report).references == References(lookups=0, handles_and_operations=0, passive=3)
    queue = in_core(report).queue
    assert queue is not None
    assert queue.position == 0
    assert in_core(report).queued_seconds is not None
    assert in_core(report).pending_blocks >= 49
    assert "inodegc is stopped" in reasons
    kernel.runtime.workers.resume()
    await kernel.runtime.workers.flush()
    report, reasons = await ask(kernel, ino)
    assert report.record is None
    assert report.memory is None
    assert "it is free" in reasons


async def test_the_place_in_the_queue(kernel: Kernel) -> None:
    kernel.runtime.workers.set_count(1)
    await kernel.runtime.workers.stop()
    inos = []
    for number in range(4):
        ino, fh = await kernel.create(b"file%d" % number)
        await kernel.adapter.release(fh)
        await kernel.adapter.unlink(ROOT, b"file%d" % number, context())
        await kernel.adapter.forget([(ino, 1)])
        inos.append(ino)
    positions = [in_core((await ask(kernel, ino))[0]).queue for ino in inos]
    assert positions == [QueuePosition(number=0, position=position) for position in range(4)]
    kernel.runtime.workers.resume()


async def test_a_cached_inode(kernel: Kernel) -> None:
    ino, fh = await kernel.create(b"file")
    await kernel.adapter.release(fh)
    await kernel.adapter.forget([(ino, 1)])
    report, reasons = await ask(kernel, ino)
    assert in_core(report).state == "IDLE"
    assert "cached until memory is needed" in reasons
    await kernel.runtime.reclaimer.shrink(1 << 40)
    report, reasons = await ask(kernel, ino)
    assert report.memory is None
    assert "it is not in memory" in reasons


async def test_failures_and_quarantine(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    ino, fh = await kernel.create(b"file")
    await kernel.adapter.release(fh)
    await kernel.adapter.unlink(ROOT, b"file", context())
    runtime = kernel.runtime

    def failing(self: Inactivation, plan: Plan) -> bool:
        raise FsError(5, "planted")

    monkeypatch.setattr(Inactivation, "step", failing)
    await kernel.adapter.forget([(ino, 1)])
    while not runtime.volume.gc.errors_total:
        await runtime.workers.progress()
    report, reasons = await ask(kernel, ino)
    assert in_core(report).failures == 1
    assert in_core(report).retry_in_seconds is not None
    assert "failed 1 times; next retry in" in reasons
    while not runtime.volume.gc.quarantined_total:
        runtime.volume.gc.retry_now()
        await runtime.workers.progress()
    report, reasons = await ask(kernel, ino)
    assert in_core(report).state == "QUARANTINED"
    assert "gc=retry" in reasons
    assert record(report).orphan_slot == 0


async def test_looking_changes_nothing(kernel: Kernel) -> None:
    ino, _ = await kernel.create(b"file")
    before = kernel.runtime.volume.inodes.statistics()
    for number in (ino, ROOT, 2, 3, 4711, 1 << 40):
        await ask(kernel, number)
    assert kernel.runtime.volume.inodes.statistics() == before
