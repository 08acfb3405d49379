"""The timeline of a daemon at work, and of one that dies."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.mounted.conftest import MakeScratch
from tests.mounted.polling import wait_until
from tests.mounted.scratch import Scratch, deferfs, drop_kernel_caches
from tests.mounted.stressing import finish, start
from tests.slice_tracker import dropped

pytestmark = [pytest.mark.mounted, pytest.mark.each_policy]


@pytest.mark.machine
def test_a_timeline_shows_all_activities_in_lanes(make_scratch: MakeScratch, evict: str, tmp_path: Path) -> None:
    """Under load from several sides, with a small budget: requests wait inside of each other's lanes."""
    scratch = make_scratch(evict=evict)
    scratch.mount("memory=8M")
    trace = tmp_path / "trace.json"
    scratch.control(f"trace={trace}")
    assert finish(start(scratch, 4, 400)) == 0
    drop_kernel_caches()
    scratch.control("gc=flush", "trace=off")
    events = json.loads(trace.read_text())
    assert not dropped(events)
    lanes = {event["args"]["name"].rpartition(" ")[0] for event in events if event["name"] == "thread_name"}
    expected = {"forget", "foreground", "inodegc"} if evict == "deferred" else {"forget", "foreground"}
    assert expected <= lanes
    names = {event["name"] for event in events}
    assert {"commit", "inactivate", "create", "unlink", "queued inodes"} <= names
    assert scratch.statistics().timeline.dropped_total == 0
    scratch.drain()
    scratch.unmount_and_check()


def test_the_timeline_can_be_opened_after_a_crash(plain: Scratch, tmp_path: Path) -> None:
    """All that is missing is the closing bracket, which the format lets go."""
    mount, trace = plain.mount(), tmp_path / "trace.json"
    plain.control(f"trace={trace}")
    for number in range(50):
        (mount / f"file{number}").write_text("content")

    def written() -> bool:
        return b'"create"' in trace.read_bytes()

    wait_until(written, "events to be written")
    plain.kill()
    plain.detach()
    events = json.loads(trace.read_text() + "]")
    assert {"process_name", "thread_name", "create"} <= {event["name"] for event in events}


def test_a_timeline_goes_to_a_new_file_only(plain: Scratch, tmp_path: Path) -> None:
    """Neither the image nor any other file is lost, a FIFO without a reader holds up neither the command nor the
    unmount."""
    plain.mount()
    precious, fifo, link = tmp_path / "precious", tmp_path / "fifo", tmp_path / "link"
    precious.write_text("precious")
    os.mkfifo(fifo)
    link.symlink_to(tmp_path / "elsewhere")
    for path in (precious, plain.image, fifo, link, "/dev/null"):
        done = deferfs("ctl", plain.mountpoint, f"trace={path}", code=1)
        assert f"{path}: exists already; name a file that does not exist yet" in done.stderr
    assert precious.read_text() == "precious"
    assert plain.image.stat().st_size == 512 << 20
    assert not os.path.lexists(tmp_path / "elsewhere")
    plain.unmount_and_check()


def test_no_log_holds_up_a_mount_or_harms_an_image(plain: Scratch, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path, reason in ((fifo, "a FIFO"), (plain.image, "an image of deferfs"), (tmp_path, "a directory")):
        done = deferfs("mount", plain.image, plain.mountpoint, "-o", f"log={path}", code=2)
        assert f"log={path}: is {reason}" in done.stderr
        assert not plain.is_mounted
    plain.check()
