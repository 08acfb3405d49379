"""What `--version` prints: the version, and the revision of the clone that deferfs was built from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

import deferfs

F = TypeVar("F", bound=Callable[..., Any])
REVISION: Final = "REVISION"
"""The file of the package that the build (`.build/compile_core.py`) writes: a commit, `-dirty` behind it when files of
the clone were changed. There is none where deferfs was not built from a clone, nor in the clone itself."""


def revision() -> str:
    """The revision that was recorded by the build; empty when there is none."""
    try:
        return Path(deferfs.__file__).with_name(REVISION).read_text().strip()
    except OSError:
        return ""


def version_text() -> str:
    """`0.1.0`, or `0.1.0 (revision 0123456789ab)`."""
    built_from = revision()
    return f"{deferfs.__version__} (revision {built_from})" if built_from else deferfs.__version__


def version_option(*names: str) -> Callable[[F], F]:
    """The option of a program that prints its version and ends; `--version` unless other `names` are given."""
    return click.version_option(version_text(), *names, prog_name="deferfs")
