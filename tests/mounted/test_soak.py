"""A short soak: the promises of the long one that a quarter of a minute can break."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.mounted.scratch import drop_kernel_caches, run

pytestmark = pytest.mark.mounted

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(300)
def test_everything_at_once(tmp_path: Path) -> None:
    drop_kernel_caches()
    found = tmp_path / "soak.json"
    words = ("--minutes", "0.25", "--processes", "3", "--json", found)
    done = run(sys.executable, "-m", "bench.scenarios.soak", *words, cwd=ROOT, seconds=250)
    soak = json.loads(found.read_text())
    assert all(verdict["kept"] is not False for verdict in soak["verdicts"])
    assert sum(verdict["kept"] is True for verdict in soak["verdicts"]) >= 11
    assert "NOT KEPT" not in done.stdout
    assert soak["rounds"] > 3
    assert "ERROR" not in found.with_suffix(".log").read_text()
