"""Build hook of hatchling: the wheel gets the core compiled by mypyc, beside its Python sources, and wheel and sdist
get the revision of the clone that they are built from, in the file deferfs/REVISION.

The core is synchronous and typed, and its modules call each other without pause: compiled as one group they take about
half the time. Each has a C file of its own, and the C compiler works on several at once: one file for all took three
times as long to compile, and was no faster. Everything else (and an editable install) stays plain Python, and so does
all of it where there is no C compiler. Nothing is written into the source tree: a stale compiled module beside a
changed source would win.

DEFERFS_COMPILE        `0`: do not compile; `1`: fail where it is impossible; not set: warn then
DEFERFS_COMPILE_CACHE  a directory that keeps what was compiled, for builds of the same core
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE: Final = "deferfs"
REVISION: Final = "REVISION"
PACKAGES: Final = ("ondisk", "store", "reclaim", "volume")
PLAIN: Final = ("reclaim/context.py", "reclaim/lockdep.py", "volume/driver.py")
"""Around the core: the checker of the runtime, whose stacks are those of Python, and the driver that crash exploration
derives its own from. The packages themselves stay plain as well: they only export names, and keep their docstrings."""
COMPILER: Final = ("mypy[mypyc]>=1.13,<3", "pybind11>=2.13,<4", "setuptools")
"""pybind11 is there for its `ParallelCompile`."""
SETUP: Final = """\
import sys
from mypyc.build import mypycify
from pybind11.setup_helpers import ParallelCompile
from setuptools import setup
flags = ["--config-file=", "--ignore-missing-imports", "--follow-imports=silent"]
modules = mypycify(flags + sys.argv.pop().split(), group_name="deferfs", multi_file=True, debug_level="0")
with ParallelCompile():
    setup(name="core", packages=[], ext_modules=modules)
"""


def core_modules(root: Path) -> list[str]:
    """The modules that are compiled, relative to `root`."""
    package = root / PACKAGE
    paths = [path for name in PACKAGES for path in sorted((package / name).rglob("*.py"))]
    plain = {package / name for name in PLAIN}
    return [str(path.relative_to(root)) for path in paths if path not in plain and path.name != "__init__.py"]


def fingerprint(root: Path) -> str:
    """What the compiled modules depend on: this file, all sources that type information may come from, the tools."""
    digest = hashlib.sha256(repr((sys.version, sys.platform, os.uname().machine)).encode())
    for tool in ("mypy", "setuptools"):
        try:
            digest.update(version(tool).encode())
        except PackageNotFoundError:
            digest.update(b"none")
    for path in (Path(__file__), *(root / name for name in core_modules(root)), root / PACKAGE / "limits.py"):
        digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()[:32]


def compile_core(root: Path, target: Path) -> list[Path]:
    """Compile into `target` (a copy of the package is made there); the extension modules. CompileError."""
    shutil.copytree(root / PACKAGE, target / PACKAGE, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    done = subprocess.run(
        [sys.executable, "-c", SETUP, "build_ext", "--inplace", " ".join(core_modules(root))],
        cwd=target,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise CompileError(f"mypyc and the C compiler ended with\n{done.stdout[-2000:]}")
    return extension_modules(target)


def extension_modules(target: Path) -> list[Path]:
    """Those in `target`: one beside the package that holds the code, and one for each module of it."""
    return sorted(target.glob("*.so")) + sorted((target / PACKAGE).rglob("*.so"))


def revision(root: Path) -> str:
    """The commit that is checked out in the clone at `root`, with `-dirty` when files were changed since; empty when
    `root` is no clone, or git cannot tell."""
    if not (root / ".git").exists():
        return ""
    command = ("git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")
    try:
        done = subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    except OSError:
        return ""
    return "" if done.returncode else done.stdout.strip()


class CompileError(Exception):
    """There is no working compiler, or it refuses the core."""


class CompileCore(BuildHookInterface[Any]):
    """Adds the extension modules to a wheel, and the revision to a wheel and an sdist."""

    def dependencies(self) -> list[str]:
        """The compiler, unless it is not wanted."""
        return [] if os.environ.get("DEFERFS_COMPILE") == "0" else list(COMPILER)

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Record the revision; compile, or say why not."""
        if version != "editable":
            self._record_revision(build_data)
        wish = os.environ.get("DEFERFS_COMPILE", "")
        if self.target_name != "wheel" or version == "editable" or wish == "0":
            return
        root = Path(self.root)
        cache = os.environ.get("DEFERFS_COMPILE_CACHE")
        if cache:
            target = Path(cache).resolve() / fingerprint(root)
        else:
            self._scratch = tempfile.TemporaryDirectory(prefix="deferfs-build-")
            target = Path(self._scratch.name) / "core"
        try:
            modules = extension_modules(target) or self._compile(root, target)
        except CompileError as error:
            if wish == "1":
                self.app.abort(f"the core cannot be compiled: {error}")
            self.app.display_warning(f"the core stays plain Python, which is slower; it cannot be compiled: {error}")
            return
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        build_data["force_include"].update({str(path): str(path.relative_to(target)) for path in modules})

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was made."""
        if hasattr(self, "_notes"):
            self._notes.cleanup()
        if hasattr(self, "_scratch"):
            self._scratch.cleanup()

    def _record_revision(self, build_data: dict[str, Any]) -> None:
        """In an unpacked sdist there is no clone, but the file that its build has recorded: it is kept."""
        found = revision(Path(self.root))
        if found:
            self._notes = tempfile.TemporaryDirectory(prefix="deferfs-build-")
            note = Path(self._notes.name) / REVISION
            note.write_text(f"{found}\n")
            build_data["force_include"][str(note)] = f"{PACKAGE}/{REVISION}"

    def _compile(self, root: Path, target: Path) -> list[Path]:
        """Compile beside `target`, and move there what is complete."""
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as directory:
            work = Path(directory)
            for module in compile_core(root, work):
                kept = target / module.relative_to(work)
                kept.parent.mkdir(parents=True, exist_ok=True)
                shutil.move(module, kept)
        return extension_modules(target)
