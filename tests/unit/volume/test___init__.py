"""`deferfs.volume` as others import it: the names that its guide tells of, and its example."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import deferfs.volume
from tests.cli.conftest import environment_of_the_program

DOCS = Path(__file__).parents[3] / "docs"


@pytest.mark.parametrize("name", deferfs.volume.__all__)
def test_the_guide_tells_of_every_public_name(name: str) -> None:
    assert getattr(deferfs.volume, name) is not None
    assert re.search(rf"`[^`\n]*\b{name}\b[^`\n]*`", (DOCS / "volume-library.md").read_text())


def test_the_example() -> None:
    done = subprocess.run(
        [sys.executable, "-P", DOCS / "example_volume.py"],
        capture_output=True, text=True, check=False, env=environment_of_the_program(),
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(
        r"\d\d+ crashes after \d+ of \d+ writes and flushes: the old content or the new\n"
        r"right after the first fsync, with an empty cache: \. \.\. config\n",
        done.stdout,
    )
