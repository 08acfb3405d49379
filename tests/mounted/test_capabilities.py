"""What a change takes from the mode depends on capabilities(7) and groups, not on the user id; as on ext4."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mounted.posix.places import place
from tests.mounted.scratch import run

pytestmark = [pytest.mark.mounted, pytest.mark.needs("getfattr", "mkfs.ext4", "mkfs.xfs", "setfacl", "setfattr")]

USER, GROUP = 1000, 2000
_AS_USER = (f"--reuid={USER}", f"--regid={USER}", "--clear-groups")
PEOPLE = {
    "root": (),
    "root without the capability": ("--bounding-set=-fsetid,-sys_admin", "--inh-caps=-fsetid,-sys_admin"),
    "a user": _AS_USER,
    "a user with the capability": (*_AS_USER, "--inh-caps=+fsetid,+sys_admin", "--ambient-caps=+fsetid,+sys_admin"),
}
CAPABLE = ("root", "a user with the capability")
CHANGES = {
    "write": 'echo >> "$0"',
    "truncate": 'truncate -s 1 "$0"',
    "lengthen": 'truncate -s 100 "$0"',
    "open and truncate": ': > "$0"',
}


@pytest.fixture(scope="module", params=["deferfs-writeback-deferred", "deferfs-through-inline", "ext4"])
def directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with place(tmp_path_factory.mktemp("capabilities") / "place", request.param) as found:
        found.directory.chmod(0o777)
        yield found.directory


def as_(who: str, script: str, path: Path) -> str:
    """Run a line of shell with a file's name as $0; what it prints."""
    return run("setpriv", *PEOPLE[who], "sh", "-c", script, path.name, cwd=path.parent).stdout


def program(directory: Path, mode: int, gid: int = 0, uid: int = 0) -> Path:
    """A fresh file with something in it."""
    path = directory / "program"
    path.unlink(missing_ok=True)
    path.write_text("content")
    os.chown(path, uid, gid)
    path.chmod(mode)
    return path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("who", PEOPLE)
def test_set_id_bits_after_a_change_of_content(directory: Path, who: str, change: str) -> None:
    path = program(directory, 0o6777)
    as_(who, CHANGES[change], path)
    assert mode(path) == (0o6777 if who in CAPABLE else 0o777)
    path = program(directory, 0o2666)  # no program
    as_(who, CHANGES[change], path)
    assert mode(path) == (0o666 if who == "a user" else 0o2666)  # root belongs to its group


@pytest.mark.parametrize("who", PEOPLE)
def test_the_set_group_id_bit_after_a_new_access_list(directory: Path, who: str) -> None:
    path = program(directory, 0o2755, gid=GROUP, uid=USER)
    as_(who, 'setfacl -m u:1001:r "$0"', path)
    assert mode(path) == (0o2755 if who in CAPABLE else 0o755)


@pytest.mark.parametrize("who", PEOPLE)
def test_set_id_bits_after_a_change_of_group(directory: Path, who: str) -> None:
    """Executables always lose both bits, other files the set-group-id bit unless the caller may keep it."""
    path = program(directory, 0o6755, gid=GROUP, uid=USER)
    as_(who, f'chgrp {USER} "$0"', path)
    assert mode(path) == 0o755
    path = program(directory, 0o2644, gid=GROUP, uid=USER)
    as_(who, f'chgrp {USER} "$0"', path)
    assert mode(path) == (0o2644 if who in CAPABLE else 0o644)


@pytest.mark.parametrize("who", PEOPLE)
def test_trusted_attributes_are_shown_to_privileged_callers(directory: Path, who: str) -> None:
    path = program(directory, 0o644)
    os.setxattr(path, "trusted.secret", b"v")
    os.setxattr(path, "user.open", b"v")
    shown = as_(who, 'getfattr -m - "$0"', path)
    assert "user.open" in shown
    assert ("trusted.secret" in shown) == (who in CAPABLE)
