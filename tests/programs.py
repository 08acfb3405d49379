"""Which programs a test finds: those that every Debian has, what deferfs needs, and what the test says that it needs.

So a test cannot come to depend on something that a developer's machine happens to have and tests/setup-environment does
not install. The table is tests/programs.txt, which tests/setup-environment reads too.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

TABLE = Path(__file__).with_name("programs.txt")
ALWAYS = ("system", "deferfs")
"""The groups whose programs no test needs to name."""
NAMED = ("build", "tests", "long")
"""The groups whose programs a test may name: what tests/setup-environment installs for the tests."""
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where Debian's packages put programs: mkfs.ext4, for one, is not in the PATH of every user."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: a package of a group, and the programs that it is installed for."""

    group: str
    package: str
    programs: tuple[str, ...]


def read(text: str) -> list[Row]:
    """The rows of a table."""
    lines = (line.split() for line in text.splitlines() if line.strip() and not line.startswith("#"))
    return [Row(group, package, tuple(programs)) for group, package, *programs in lines]


def of_groups(rows: Iterable[Row], groups: Iterable[str]) -> dict[str, str]:
    """The programs of these groups, each with its package."""
    wanted = set(groups)
    return {program: row.package for row in rows if row.group in wanted for program in row.programs}


class Shelf:
    """Directories of links to programs, from which the PATH of each test is made."""

    def __init__(self, home: Path, rows: list[Row], path: str) -> None:
        """`home` is made, and everybody may look into it: some tests run programs as other users. `path` is the PATH in
        which the programs are looked for."""
        self._home = home
        self._path = f"{path}:{SYSTEM_PATH}"
        self._named = of_groups(rows, NAMED)
        home.mkdir(mode=0o755)
        home.chmod(0o755)
        self._always = self._directory("always", of_groups(rows, ALWAYS))

    def path(self, needed: Iterable[str]) -> str:
        """The PATH of a test that needs these programs; LookupError, with what to do, when it cannot have one."""
        directories = [self._always]
        for program in needed:
            if program not in self._named:
                raise LookupError(f"{program} is in no group of tests/programs.txt that tests may name")
            directory = self._directory(program, [program])
            if not os.listdir(directory):
                raise LookupError(
                    f"{program} is not installed: tests/setup-environment installs {self._named[program]}"
                )
            directories.append(directory)
        return ":".join(map(str, directories))

    def _directory(self, name: str, programs: Iterable[str]) -> Path:
        directory = self._home / name
        if not directory.exists():
            directory.mkdir(mode=0o755)
            directory.chmod(0o755)
            for program in programs:
                if found := shutil.which(program, path=self._path):
                    (directory / program).symlink_to(found)
        return directory
