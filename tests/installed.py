"""The installed package, whose daemon all tests that mount run, and which tests/run imports for those and for the tests
marked `compiled`; all others import the sources beside the tests."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest

import deferfs

TREE = Path(__file__).parents[1] / "deferfs"
IS_IMPORTED = Path(deferfs.__file__).parent != TREE
"""Whether these tests import it, and not the sources."""


def installed_package() -> Path:
    """Where it is; with an editable install, the sources themselves."""
    found = Path(sysconfig.get_path("platlib"), "deferfs")
    return found if found.is_dir() else TREE


def is_compiled() -> bool:
    """Whether its core is compiled."""
    return any((installed_package() / "store").glob("plan.*.so"))


def out_of_date() -> list[Path]:
    """The sources that were changed, added or removed since it was installed."""
    package = installed_package()
    ours, theirs = ({path.relative_to(root) for path in root.rglob("*.py")} for root in (TREE, package))
    changed = {path for path in ours & theirs if (TREE / path).read_bytes() != (package / path).read_bytes()}
    return [TREE / path for path in sorted(changed | (ours ^ theirs))]


def require_up_to_date() -> None:
    """End the session unless it is the one of the sources that are tested."""
    if different := out_of_date():
        pytest.exit(f"{different[0]} is not the one that is installed; run tests/setup-environment", returncode=3)
