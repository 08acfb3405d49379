"""A short soak: the promises of the long one that nine seconds can break."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.mounted.scenario_runs import check_schema
from tests.mounted.scratch import drop_kernel_caches, run

pytestmark = [pytest.mark.mounted, pytest.mark.machine, pytest.mark.long]

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(300)
def test_a_soak_keeps_its_promises(tmp_path: Path) -> None:
    drop_kernel_caches()
    found = tmp_path / "soak.json"
    log = tmp_path / "daemon.log"
    settings = [word for value in ("minutes=0.15", "processes=3", f"log={log}") for word in ("--set", value)]
    words = ("bench", "soak", *settings, "--scratch", str(tmp_path), "--json", str(found))
    run(sys.executable, "-P", "-c", "from deferfs.cli.main import main; main()", *words, cwd=ROOT, seconds=250)
    check_schema(found.read_bytes())
    (result,) = json.loads(found.read_text())["results"]
    (soak,) = result["passes"]
    assert soak["broken"] == []
    assert soak["counters"]["promises_kept_total"] >= 11
    assert soak["counters"]["rounds_total"] > 3
    assert "ERROR" not in log.read_text()
