"""Waiting for what happens elsewhere: look again and again until a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

SECONDS_MAX = 60.0
"""Far more than anything takes that is polled for; a machine under load must not fail a test."""
INTERVAL_SECONDS = 0.01


def wait_until(condition: Callable[[], bool], what: str, *, seconds: float = SECONDS_MAX) -> None:
    """Return as soon as `condition` holds; fail, naming `what`, when it never does."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds:g} s in vain: {what}")
        time.sleep(INTERVAL_SECONDS)
