"""Reading a source tree, for the house rules of test_tidy.py."""

import ast
import functools
import os
from collections.abc import Iterator
from pathlib import Path

CORE = {"device", "ondisk", "store", "reclaim", "volume"}
"""The packages below mount/."""
_NOT_OURS = {"build", "dist", "__pycache__", "node_modules"}


def files(root: Path) -> Iterator[Path]:
    """Every file of a tree that is not hidden, generated or installed (but those of .ci)."""
    for directory, names, filenames in os.walk(root):
        names[:] = sorted(name for name in names if name == ".ci" or not (name.startswith(".") or name in _NOT_OURS))
        yield from (Path(directory, name) for name in sorted(filenames) if name != ".git")  # a file in a worktree


def modules(root: Path, *folders: str) -> Iterator[tuple[str, ast.Module]]:
    """The path relative to `root` and the syntax tree of every Python file in `folders`."""
    for folder in folders:
        for path in files(root / folder):
            if path.suffix == ".py":
                yield str(path.relative_to(root)), parsed(path.read_text())


@functools.cache
def parsed(text: str) -> ast.Module:
    """The syntax tree of a module. It is shared by all rules, which change nothing in it."""
    return ast.parse(text)


def texts(root: Path) -> Iterator[tuple[str, str]]:
    """The path relative to `root` and the contents of every file that is text."""
    for path in files(root):
        try:
            yield str(path.relative_to(root)), path.read_text()
        except (UnicodeDecodeError, OSError):
            continue


def imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """The line and dotted name of everything a module imports, at whatever depth."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if base == "deferfs":
                yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, base


def package_of(path: str) -> str:
    """The package that contains a module; for the modules at the top of the package, their own name."""
    return Path(path).parts[1].removesuffix(".py")
