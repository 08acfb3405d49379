"""A test finds the programs that it names and the basic ones; where packages come from is told to a bare root."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests import programs, registries
from tests.programs import Row, Shelf

TABLE = """\
# group package programs
system  shell   sh
tests   tools   tool other
long    slow    gone
bare    maker   make-root
build   headers
"""


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    """`tool` and `undeclared` are installed, `gone` is not."""
    (tmp_path / "bin").mkdir()
    for name in ("sh", "tool", "other", "undeclared", "make-root"):
        (tmp_path / "bin" / name).write_text("#!/bin/true\n")
        (tmp_path / "bin" / name).chmod(0o755)
    return Shelf(tmp_path / "shelf", programs.read(TABLE), str(tmp_path / "bin"))


def test_the_table_is_read() -> None:
    assert programs.read(TABLE)[1:3] == [Row("tests", "tools", ("tool", "other")), Row("long", "slow", ("gone",))]


def test_a_test_finds_what_it_names_and_the_basic_programs(shelf: Shelf) -> None:
    path = shelf.path(["tool"])
    assert shutil.which("tool", path=path) and shutil.which("sh", path=path)
    assert not shutil.which("other", path=path)
    assert not shutil.which("undeclared", path=path)
    assert not shutil.which("tool", path=shelf.path([]))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("undeclared", "undeclared is in no group"),
        ("make-root", "make-root is in no group"),
        ("gone", "not installed: tests/setup-environment installs slow"),
    ],
)
def test_a_program_that_is_not_set_up_cannot_be_needed(shelf: Shelf, name: str, reason: str) -> None:
    with pytest.raises(LookupError, match=reason):
        shelf.path([name])


def test_this_test_does_not_find_what_it_does_not_name() -> None:
    """Every Debian has perl, and it is not in the table."""
    assert shutil.which("perl") is None
    assert shutil.which("git") is None
    assert shutil.which("ls")
    with pytest.raises(FileNotFoundError):
        subprocess.run(["git"], check=False)


@pytest.mark.needs("git")
def test_this_test_finds_what_it_names() -> None:
    assert shutil.which("git")


@pytest.mark.skip(reason="shows that a test that is skipped needs nothing")
@pytest.mark.needs("undeclared")
def test_a_skipped_test_needs_no_program() -> None:
    pytest.fail("skipped")


def test_programs_can_be_run_by_other_users() -> None:
    for directory in os.environ["PATH"].split(":"):
        for folder in (Path(directory), *Path(directory).parents):
            assert folder.stat().st_mode & 0o005 == 0o005, folder


def test_the_sources_of_another_release_are_those_of_this_one() -> None:
    targets = """\
http://mirror/debian/ bookworm main Debian
http://mirror/debian/ bookworm contrib Debian
http://mirror/debian/ bookworm-updates main Debian
http://mirror/security/ bookworm-security main Debian
http://mirror/debian/ bookworm-backports main Debian
http://elsewhere/ bookworm main Stranger
"""
    assert registries.apt_sources(targets, "trixie") == [
        "deb http://mirror/debian/ trixie main",
        "deb http://mirror/debian/ trixie-updates main",
        "deb http://mirror/security/ trixie-security main",
    ]


def test_pip_is_told_how_to_get_there_and_nothing_of_this_machine() -> None:
    system = "[global]\nindex-url = https://one/simple\nconstraint = /etc/constraints.txt\ntimeout = 5\n"
    user = "[global]\nindex-url = https://two/simple\nextra-index-url = file:///disk https://more\nfind-links = /disk\n"
    found = registries.pip_environment([system, user], {"PIP_TIMEOUT": "60", "https_proxy": "http://p", "HOME": "/"})
    assert found == {
        "PIP_INDEX_URL": "https://two/simple",
        "PIP_EXTRA_INDEX_URL": "https://more",
        "PIP_TIMEOUT": "60",
        "https_proxy": "http://p",
    }
