"""The import contracts of pyproject.toml: each finds what it is there for."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.source_tree import imports, modules

ROOT = Path(__file__).resolve().parents[1]

PLANTED = {
    "deferfs/device/planted.py": "import deferfs.store.cache",
    "deferfs/store/planted.py": "from deferfs.volume.volume import Volume",
    "deferfs/volume/planted.py": "import deferfs.contract.statistics\ndef f():\n from deferfs import mount",
    "deferfs/contract/planted.py": "import deferfs.device",
    "deferfs/mount/planted.py": "",
    "deferfs/mount/host/planted.py": "import trio\nfrom deferfs.mount.daemon import session",
    "deferfs/mount/runtime/planted.py": (
        "import socket\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n import deferfs.mount.host.users"
    ),
    "deferfs/mount/fuse/planted.py": "import deferfs.mount.fuse.other, deferfs.mount.runtime.runtime",
    "deferfs/mount/fuse/other.py": "import deferfs.mount.fuse.planted",
    "deferfs/mount/control/planted.py": "from deferfs.mount.fuse.adapter import Adapter",
    "deferfs/mount/daemon/planted.py": "import pyfuse3\nimport deferfs.check.checker\nimport deferfs.cli.main",
    "deferfs/check/planted.py": "from deferfs.store import cache",
    "deferfs/reclaim/planted.py": "import msgspec\nimport deferfs.ondisk.inode",
    "deferfs/attic/__init__.py": "",
    "deferfs/limits.py": "import deferfs.device",
}
"""What is added to the files of a copy of the package."""
EXPECTED = [
    "deferfs.device is not allowed to import deferfs.store",
    "deferfs.store is not allowed to import deferfs.volume",
    "deferfs.volume is not allowed to import deferfs.mount",
    "deferfs.volume.planted -> deferfs.contract.statistics",
    "deferfs.contract is not allowed to import deferfs.device",
    "deferfs.mount is not allowed to import deferfs.cli",
    "deferfs.limits is not allowed to import deferfs.device",
    "deferfs.attic",
    "deferfs.mount.planted",
    "deferfs.mount.host is not allowed to import deferfs.mount.daemon",
    "deferfs.mount.runtime is not allowed to import deferfs.mount.host",
    "deferfs.mount.control is not allowed to import deferfs.mount.fuse",
    "deferfs.check is not allowed to import deferfs.store",
    "deferfs.reclaim is not allowed to import deferfs.ondisk",
    "deferfs.reclaim is not allowed to import msgspec",
    "deferfs.mount.runtime is not allowed to import socket",
    "deferfs.mount.daemon.planted -> deferfs.check.checker",
    "deferfs.mount.daemon.planted -> pyfuse3",
    "deferfs.mount.fuse.planted -> deferfs.mount.runtime.runtime",
    "No cycles are allowed in deferfs.mount.fuse",
    "deferfs.mount.host.planted -> trio",
]


_TOP = {"__main__", "errors", "limits", "printable", "units"}


def package_of(module: str) -> str:
    """The package that contains a dotted name of deferfs; those of mount/ count separately."""
    words = module.split(".")[1:]
    return "mount/" + words[1] if words[:1] == ["mount"] and len(words) > 1 else "".join(words[:1])


def diagram() -> str:
    """One line per package: those that it imports, at run time or for type checking; lowest packages last."""
    edges: dict[str, set[str]] = {}
    for path, tree in modules(ROOT, "deferfs"):
        source = package_of(path.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
        found = edges.setdefault(source, set())
        found |= {package_of(name) for _, name in imports(tree) if name.startswith("deferfs.")} - {
            source,
            *_TOP,
            "__version__",
        }
    lines: list[str] = []
    left = {name: targets - {"__version__"} for name, targets in edges.items() if name not in _TOP}
    for package in ("", "mount"):
        assert not left.pop(package), "packages import nothing"
    while left:
        free = sorted(name for name in left if not any(name in targets for targets in left.values()))
        assert free, f"a cycle among {sorted(left)}"
        lines += [f"{name:<14} -> {', '.join(sorted(left.pop(name)))}".rstrip("-> ") for name in free]
    return "\n".join(lines)


def test_the_diagram_of_the_packages_is_drawn_from_the_code() -> None:
    document = (ROOT / "docs" / "architecture.md").read_text()
    drawn = re.search(r"generated from the code by.*?```\n(.*?)```", document, re.DOTALL)
    assert drawn is not None
    assert drawn[1] == diagram() + "\n", "docs/architecture.md shows other imports than there are"


def lint(root: Path) -> tuple[int, str]:
    """Exit code and output, as one line, of the linter for the package in `root`."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--no-logo"]
    done = subprocess.run(command, cwd=root, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.returncode, re.sub(r"\s+", " ", done.stdout)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The package and its contracts."""
    shutil.copytree(ROOT / "deferfs", tmp_path / "deferfs", ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_package_keeps_its_contracts(copy: Path) -> None:
    code, output = lint(copy)
    assert code == 0, output


def test_each_contract_finds_what_is_planted(copy: Path) -> None:
    for name, text in PLANTED.items():
        path = copy / name
        path.parent.mkdir(exist_ok=True)
        with path.open("a") as file:
            file.write(f"\n{text}\n")
    code, output = lint(copy)
    assert code == 1
    assert [text for text in EXPECTED if text not in output] == []
    contracts = (ROOT / "pyproject.toml").read_text().count("[[tool.importlinter.contracts]]")
    assert f"0 kept, {contracts} broken" in output
