"""The statistics object: JSON at any time, and its numbers follow what happens."""

from __future__ import annotations

import ast
import inspect
import json

import msgspec

from deferfs.contract.statistics import Statistics, Timing, encode
from deferfs.mount.control import statistics
from deferfs.mount.control.statistics import snapshot
from deferfs.mount.runtime.runtime import Runtime
from deferfs.volume import attributes
from tests.statistics_sample import read, structs
from tests.unit.runtimes import SERVED, delete_and_forget, make_file, running
from tests.unit.volumes import fresh_device, open_driver


def told(runtime: Runtime) -> Statistics:
    """As a client has it."""
    return read(json.loads(json.dumps(encode(snapshot(runtime, SERVED)))))


async def test_queued_inodes_are_reported_by_queue() -> None:
    async with running() as runtime:
        assert told(runtime).gc.stopped is False
        await runtime.workers.stop()
        for number in range(5):
            name = b"%d" % number
            await delete_and_forget(runtime, name, await make_file(runtime, name, b"x" * 5000))
        gc = told(runtime).gc
        assert gc.stopped is True
        assert gc.queued == sum(queue.depth for queue in gc.queues) == 5
        assert gc.pending_bytes == sum(queue.bytes for queue in gc.queues) >= 5 * 5000
        assert told(runtime).inodes.queued == told(runtime).space.orphans == 5
        runtime.workers.resume()
        await runtime.workers.flush()
        gc = told(runtime).gc
        assert (gc.queued, gc.inactivated_total, gc.inactivation.count) == (0, 5, 5)


async def test_memory_adds_up() -> None:
    async with running() as runtime:
        await make_file(runtime, b"file", b"x" * 5000)
        memory = told(runtime).memory
        parts = ("inode", "block", "superseded", "table", "debt", "buffer")
        assert sum(getattr(memory, f"{part}_bytes") for part in parts) == memory.used_bytes <= memory.budget_bytes
        assert memory.dirty_bytes > 0
        await runtime.drive(runtime.engine.eviction.direct_reclaim(1))
        assert told(runtime).memory.direct_reclaims_total == 1


async def test_the_journal_and_the_free_space_are_those_of_the_store() -> None:
    async with running() as runtime:
        ino = await make_file(runtime, b"file", b"x" * 50_000)
        await runtime.sync()
        found = told(runtime)
        assert (found.journal.commits_total, found.journal.aborted) == (1, "")
        assert found.waits["commit"].count == 1
        assert found.space.free_blocks == attributes.statfs(runtime.volume).free
        assert found.space.inodes_used == runtime.store.inodes.used
        await delete_and_forget(runtime, b"file", ino)
        await runtime.workers.flush()
        assert told(runtime).space.pending_free_blocks >= 50


async def test_a_freeze_and_a_mount_for_reading_are_told() -> None:
    async with running() as runtime:
        await runtime.freezer.freeze()
        found = told(runtime)
        assert found.frozen is True
        assert found.freeze.since_ns > 0
        await runtime.freezer.thaw()
        assert told(runtime).frozen is False
    async with running(driver=open_driver(fresh_device(), read_only=True)) as runtime:
        assert told(runtime).read_only is True


async def test_an_abort_is_told_in_words() -> None:
    async with running(close=False) as runtime:
        runtime.store.journal.abort(OSError(5, "unplugged"))
        found = told(runtime)
        assert found.read_only is True
        assert "unplugged" in found.journal.aborted


async def test_requests_are_counted_by_kind() -> None:
    async with running() as runtime:
        runtime.requests.add("lookup", 1500)
        timing = Timing(count=1, total_ns=1500, max_ns=1500, log2_ns={2048: 1})
        assert told(runtime).requests["lookup"] == timing


async def test_statistics_have_the_facts_of_the_mount() -> None:
    async with running() as runtime:
        found = told(runtime)
    assert (found.image, found.mountpoint, found.pid, found.handlers) == ("/image", "/mnt", 1, 24)
    assert found.evict == "deferred"


def test_every_key_is_given_a_value_also_one_with_a_default() -> None:
    """The default of a key that was added later is for readers: it stands for a daemon that does not tell."""
    made: dict[str, set[str | None]] = {}
    for node in ast.walk(ast.parse(inspect.getsource(statistics))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            made.setdefault(node.func.id, set()).update(keyword.arg for keyword in node.keywords)
    optional = [
        (struct.__name__, field.name)
        for struct in structs()
        for field in msgspec.structs.fields(struct)
        if not field.required
    ]
    assert [f"{struct}.{name}" for struct, name in optional if name not in made.get(struct, ())] == []
