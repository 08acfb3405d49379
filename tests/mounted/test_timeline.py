"""The timeline of a daemon that dies."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.mounted.polling import wait_until
from tests.mounted.scratch import Scratch

pytestmark = pytest.mark.mounted


def test_after_a_crash_the_timeline_can_be_opened(plain: Scratch, tmp_path: Path) -> None:
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
