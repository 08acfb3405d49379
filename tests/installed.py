"""The installed package, which the tests that mount run, beside the sources that all other tests import."""

from __future__ import annotations

import sysconfig
from pathlib import Path

TREE = Path(__file__).parents[1] / "deferfs"


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
