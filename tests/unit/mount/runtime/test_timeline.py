"""The timeline: what is in the file, that it is whole at any time, and that it stays within its bounds."""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from deferfs.contract.statistics import encode
from deferfs.errors import UsageError
from deferfs.mount.control.settings import control
from deferfs.mount.host.output_file import create_file
from deferfs.mount.runtime import timeline as module
from deferfs.mount.runtime.timeline import Timeline
from tests.slice_tracker import dropped
from tests.unit.mount.fuse.requests import context
from tests.unit.mount.kernels import ROOT, Kernel
from tests.unit.runtimes import write_back

Event = dict[str, Any]


@pytest.fixture
async def timeline() -> AsyncIterator[Timeline]:
    found = Timeline(lambda: {"depth": {"queue 0": 3}}, create_file)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(found.run)
        yield found
        await found.stop()
        nursery.cancel_scope.cancel()


def events(path: Path, *, ended: bool = True) -> list[Event]:
    """All events; `ended`: the file must be whole JSON, otherwise it may lack the bracket, as after a crash."""
    text = path.read_text()
    found: list[Event] = json.loads(text if ended else text + "]")
    return found


def lanes(found: list[Event]) -> dict[int, str]:
    return {event["tid"]: event["args"]["name"] for event in found if event["name"] == "thread_name"}


def slices(found: list[Event], lane: str) -> list[Event]:
    names = lanes(found)
    return [event for event in found if event["ph"] == "X" and names[event["tid"]].startswith(lane)]


async def test_requests_inodegc_and_commits_have_lanes(kernel: Kernel, tmp_path: Path) -> None:
    runtime, path = kernel.runtime, tmp_path / "trace.json"
    assert await control(runtime, "trace", str(path)) == f"trace={path}"

    async def work(number: int) -> None:
        ino, fh = await kernel.create(b"file%d" % number)
        await kernel.adapter.write(fh, 0, bytes(30_000))
        await kernel.adapter.fsync(fh, False)
        await kernel.adapter.release(fh)
        await kernel.adapter.unlink(ROOT, b"file%d" % number, context())
        await kernel.adapter.forget([(ino, 1)])

    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(work, number)
    await runtime.workers.flush()
    await write_back(runtime)
    await control(runtime, "trace", "off")
    found = events(path)
    assert not dropped(found)
    assert {event["name"] for event in slices(found, "foreground")} >= {"create", "write", "fsync", "unlink"}
    assert len({event["tid"] for event in slices(found, "foreground")}) > 1  # fsyncs overlapped
    assert "wait for commit" in {event["name"] for event in slices(found, "foreground")}
    assert [event["name"] for event in slices(found, "forget") if event["name"] == "forget"] == ["forget"] * 5
    assert {event["name"] for event in slices(found, "commit")} == {"commit"}
    assert {event["name"] for event in slices(found, "checkpoint")} == {"checkpoint"}
    cleaned = [event for event in found if event["name"] == "inactivate"]
    assert len(cleaned) == 5
    queued = [event["ph"] for event in found if event["name"] == "queued"]
    if runtime.volume.policy.name == "deferred":
        assert len([event for event in slices(found, "inodegc") if event["name"] == "inactivate"]) == 5
        assert sorted(queued) == ["b"] * 5 + ["e"] * 5
    else:  # the evicting request does the cleanup itself, and that is a violation
        assert len([event for event in slices(found, "forget") if event["name"] == "inactivate"]) == 5
        assert queued == []
        assert [event["ph"] for event in found if event["name"] == "forget:gc"] == ["i"] * 5
    assert {event["name"] for event in found if event["ph"] == "C"} >= {"queued inodes", "queued bytes", "log blocks"}


async def test_earlier_events_are_drawn_from_the_start_of_the_recording(timeline: Timeline, tmp_path: Path) -> None:
    """Cut off at the same moment, a wait and the request around it would not nest for a reader of the wait."""
    path = tmp_path / "trace.json"
    before = time.perf_counter_ns()
    await timeline.start(str(path))
    lane = timeline.take_lane("foreground")
    timeline.slice(lane, "wait for log", before - 5000, before)
    timeline.slice(lane, "create", before - 6000, time.perf_counter_ns())
    await timeline.stop()
    found = events(path)
    assert not dropped(found)
    assert [event["ts"] for event in slices(found, "foreground")] == [(before - 5000) / 1e3, (before - 6000) / 1e3]


@pytest.mark.parametrize(
    ("starts_and_lengths", "lost"),
    [
        ([(10, 5), (15, 5)], 0),
        ([(10, 20), (15, 5), (20, 10)], 0),
        ([(15, 5), (10, 20)], 0),
        ([(10, 20), (10, 5)], 0),
        ([(10, 5), (10, 20)], 1),
        ([(10, 10), (15, 10)], 1),
        ([(10, 0), (10, 0)], 0),
    ],
)
def test_events_that_would_not_be_shown_are_detected(starts_and_lengths: list[tuple[int, int]], lost: int) -> None:
    found = [
        {"name": "x", "ph": "X", "pid": 1, "tid": 1, "ts": start, "dur": length} for start, length in starts_and_lengths
    ]
    assert len(dropped(found)) == lost


async def test_after_a_crash_everything_written_is_there(timeline: Timeline, tmp_path: Path) -> None:
    """The file is read while it is being recorded: nothing more would have come after a crash."""
    path = tmp_path / "trace.json"
    await timeline.start(str(path))
    timeline.instant(timeline.fixed_lane("commit"), "first")
    with trio.fail_after(60):
        while not path.read_bytes():
            await trio.lowlevel.checkpoint()
    assert "first" in {event["name"] for event in events(path, ended=False)}
    timeline.instant(timeline.fixed_lane("commit"), "second")
    await timeline.stop()
    assert {"first", "second"} <= {event["name"] for event in events(path)}


async def test_events_that_do_not_fit_are_dropped_and_counted(
    timeline: Timeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BUFFER_BYTES_MAX", 2000)
    path = tmp_path / "trace.json"
    await timeline.start(str(path))
    for number in range(100):
        timeline.instant(timeline.fixed_lane("commit"), f"event {number}")
    assert timeline.dropped_total > 50
    await timeline.stop()
    assert path.stat().st_size < 2100
    names = [event["name"] for event in events(path) if event["ph"] == "i"]
    assert names == [f"event {number}" for number in range(len(names))]


async def test_a_file_that_is_full_ends(timeline: Timeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TRACE_BYTES_MAX", module.BUFFER_BYTES_MAX)
    path = tmp_path / "trace.json"
    await timeline.start(str(path))
    timeline.instant(timeline.fixed_lane("commit"), "event")
    with trio.fail_after(60):
        while timeline.active:
            await trio.lowlevel.checkpoint()
    await timeline.stop()  # that is, wait for its end
    events(path)
    assert timeline.snapshot().file == ""


async def test_a_new_recording_begins_from_nothing(timeline: Timeline, tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    for name in ("long " * 100, "short"):
        path.unlink(missing_ok=True)
        await timeline.start(str(path))
        timeline.instant(timeline.fixed_lane("commit"), name)
        await timeline.stop()
    found = events(path)
    assert [event["name"] for event in found if event["ph"] == "i"] == ["short"]
    assert "commit" in lanes(found).values()


async def test_recordings_that_are_refused(timeline: Timeline, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="absolute"):
        await timeline.start("trace.json")
    with pytest.raises(UsageError, match="No such file"):
        await timeline.start(str(tmp_path / "none" / "trace.json"))
    timeline.own_device = os.stat(tmp_path).st_dev
    with pytest.raises(UsageError, match="on the mount itself"):
        await timeline.start(str(tmp_path / "trace.json"))
    assert os.listdir(tmp_path) == []
    timeline.own_device = -1
    (tmp_path / "there").write_text("precious")
    os.mkfifo(tmp_path / "fifo")
    for name in ("there", "fifo"):
        with pytest.raises(UsageError, match="exists already"):
            await timeline.start(str(tmp_path / name))
    assert (tmp_path / "there").read_text() == "precious"
    await timeline.start(str(tmp_path / "trace.json"))
    with pytest.raises(UsageError, match="already"):
        await timeline.start(str(tmp_path / "other.json"))


async def test_lanes_are_used_again(timeline: Timeline, tmp_path: Path) -> None:
    await timeline.start(str(tmp_path / "trace.json"))
    first, second = timeline.take_lane("foreground"), timeline.take_lane("foreground")
    timeline.give_lane(first)
    assert timeline.take_lane("foreground") == first
    third = timeline.take_lane("foreground")
    assert len({first, second, third, timeline.take_lane("forget")}) == 4


async def test_nothing_is_kept_while_nothing_is_recorded(kernel: Kernel) -> None:
    await kernel.create(b"file")
    timeline = kernel.runtime.timeline
    assert timeline.events_total == 0
    assert encode(timeline.snapshot()) == {"file": "", "events_total": 0, "dropped_total": 0, "written_bytes": 0}
    await timeline.stop()  # as often as one likes
