"""Results of the scenarios that no other mounted test runs, as small as they can be, against the documented schema."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.mounted.scenario_runs import check_schema
from tests.mounted.scratch import run

pytestmark = pytest.mark.mounted

ROOT = Path(__file__).parents[2]
SMALLEST = {
    "crash": ("runs=1",),
    "deadlock": ("rounds=1",),
    "forgets": ("clean=1000", "orphans=100"),
    "memory": ("gigabytes=0", "files=200", "churned=100"),
    "scaling": ("entries=40000", "orphans=20", "mounts=1"),
    "small-files": ("files=20",),
}


@pytest.mark.parametrize("scenario", SMALLEST)
def test_the_result_of(scenario: str, tmp_path: Path) -> None:
    """A promise that so small a run does not keep (exit code 1) is no matter here."""
    found = tmp_path / "result.json"
    settings = [word for setting in SMALLEST[scenario] for word in ("--set", setting)]
    words = ("bench", scenario, "--pairs", "1", *settings, "--scratch", str(tmp_path), "--json", str(found))
    program = "from deferfs.cli.main import main; main()"
    run(sys.executable, "-P", "-c", program, *words, cwd=ROOT, seconds=250, code=None)
    check_schema(found.read_bytes())
