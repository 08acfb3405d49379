"""`--version`: the version, and the revision of the clone that deferfs was built from."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Final

import pytest

import deferfs
from deferfs.cli.version import REVISION, revision, version_text

ROOT: Final = Path(__file__).parents[2]
BUILT_FROM: Final = ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", ".gitignore", ".build/compile_core.py")
_IDENTITY: Final = (
    "-c",
    "user.name=a",
    "-c",
    "user.email=a@b",
    "-c",
    "init.defaultBranch=main",
    "-c",
    "safe.directory=*",
)

pytestmark = [
    pytest.mark.needs("git"),
    pytest.mark.skipif(not (ROOT / "pyproject.toml").exists(), reason="only in the source tree"),
]


def git(clone: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(clone), *_IDENTITY, *arguments], check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A repository with as little of deferfs as can be built."""
    root = tmp_path / "clone"
    for name in (*BUILT_FROM, "deferfs/__init__.py", "deferfs/errors.py"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    git(tmp_path, "init", "--quiet", str(root))
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "A first one")
    return root


def build(source: Path, target: str, into: Path) -> Path:
    """The wheel or sdist of `source`, made by the build backend, without compiling."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(into)],
        cwd=source,
        env={**os.environ, "DEFERFS_COMPILE": "0"},
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    (made,) = into.iterdir()
    return made


def recorded(wheel: Path) -> str | None:
    with zipfile.ZipFile(wheel) as file:
        name = f"deferfs/{REVISION}"
        return file.read(name).decode().strip() if name in file.namelist() else None


def test_version_has_no_revision_in_the_sources(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(deferfs, "__file__", str(tmp_path / "__init__.py"))
    assert revision() == ""
    assert version_text() == deferfs.__version__


def test_version_tells_the_revision_that_the_build_recorded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(deferfs, "__file__", str(tmp_path / "__init__.py"))
    (tmp_path / REVISION).write_text("0123456789ab-dirty\n")
    assert version_text() == f"{deferfs.__version__} (revision 0123456789ab-dirty)"


def test_build_records_the_commit_of_the_clone_in_wheel_and_sdist(clone: Path, tmp_path: Path) -> None:
    commit = git(clone, "rev-parse", "--short=12", "HEAD")
    assert recorded(build(clone, "wheel", tmp_path / "wheel")) == commit
    sdist = build(clone, "sdist", tmp_path / "sdist")
    (tmp_path / "unpacked").mkdir()
    subprocess.run(["tar", "-xf", sdist, "-C", tmp_path / "unpacked"], check=True)
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    assert (unpacked / "deferfs" / REVISION).read_text().strip() == commit
    assert recorded(build(unpacked, "wheel", tmp_path / "wheel of the sdist")) == commit
    assert not (clone / "deferfs" / REVISION).exists()


def test_build_marks_a_clone_with_changes(clone: Path, tmp_path: Path) -> None:
    (clone / "deferfs" / "errors.py").write_text("changed = True\n")
    commit = git(clone, "rev-parse", "--short=12", "HEAD")
    assert recorded(build(clone, "wheel", tmp_path / "wheel")) == f"{commit}-dirty"


def test_build_outside_of_a_clone_records_nothing(clone: Path, tmp_path: Path) -> None:
    shutil.rmtree(clone / ".git")
    assert recorded(build(clone, "wheel", tmp_path / "wheel")) is None
