"""`deferfs.crash` as others import it: the names that its guide tells of, each imported when it is asked for."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import deferfs.crash

GUIDE = Path(__file__).parents[3] / "docs" / "volume-library.md"


@pytest.mark.parametrize("name", deferfs.crash.__all__)
def test_the_guide_tells_of_every_public_name(name: str) -> None:
    assert getattr(deferfs.crash, name) is not None
    assert name in dir(deferfs.crash)
    assert re.search(rf"`[^`\n]*\b{name}\b[^`\n]*`", GUIDE.read_text())


def test_another_name_is_not_there() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Twins'"):
        deferfs.crash.Twins  # noqa: B018


def test_importing_the_plugin_imports_nothing_else() -> None:
    """It is loaded into every run of pytest where deferfs is installed."""
    script = (
        "import sys, deferfs.crash.pytest_plugin; print(*sorted(m for m in sys.modules if m.startswith('deferfs')))"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["deferfs", "deferfs.crash", "deferfs.crash.pytest_plugin"]
