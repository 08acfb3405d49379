"""Results of the scenarios that no other mounted test runs, as small as they can be, against the documented schema;
and work in a directory of a filesystem that is mounted already."""

from __future__ import annotations

import json
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
    "scaling": ("only=orphans", "orphans=20", "mounts=1"),
    "small-files": ("files=20",),
}
LONG = ("crash", "deadlock", "memory", "scaling")
"""Their smallest runs take ten seconds and more; what they run, other tests run too."""
DROPS_CACHES = ("deadlock", "memory", "scaling", "small-files")


def bench(*words: str, code: int | None = 0) -> None:
    program = "from deferfs.cli.main import main; main()"
    run(sys.executable, "-P", "-c", program, "bench", *words, cwd=ROOT, seconds=250, code=code)


def marks(scenario: str) -> list[pytest.MarkDecorator]:
    wanted = {"long": scenario in LONG, "machine": scenario in DROPS_CACHES}
    return [getattr(pytest.mark, name) for name, is_wanted in wanted.items() if is_wanted]


@pytest.mark.parametrize("scenario", [pytest.param(name, marks=marks(name)) for name in SMALLEST])
def test_the_result_of_a_scenario_fits_the_schema(scenario: str, tmp_path: Path) -> None:
    """A promise that so small a run does not keep (exit code 1) is no matter here."""
    found = tmp_path / "result.json"
    settings = [word for setting in SMALLEST[scenario] for word in ("--set", setting)]
    bench(scenario, "--pairs", "1", *settings, "--scratch", str(tmp_path), "--json", str(found), code=None)
    check_schema(found.read_bytes())


def test_the_result_for_a_mounted_filesystem_fits_the_schema(tmp_path: Path) -> None:
    """In a directory of a tmpfs, which is left as it was."""
    target, found = tmp_path / "target", tmp_path / "result.json"
    target.mkdir()
    run("mount", "-t", "tmpfs", "tmpfs", target)
    try:
        settings = ("--set", "rounds=2", "--set", "tree_files=400")
        bench("churn", "--target", str(target), "--pairs", "1", *settings, "--json", str(found))
        assert list(target.iterdir()) == []
    finally:
        run("umount", target)
    check_schema(found.read_bytes())
    (result,) = json.loads(found.read_bytes())["results"]
    assert result["disk"] == ""
    assert {(one["side"], one["loop"]) for one in result["passes"]} == {
        (side, loop) for side in ("as-mounted", "kept") for loop in ("open", "closed")
    }
