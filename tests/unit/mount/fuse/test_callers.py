"""Credentials of callers, from /proc."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pyfuse3
import pytest

from deferfs.mount.fuse.callers import CAP_FSETID, CAP_SYS_ADMIN, Caller

ALL = "000001ffffffffff"
ONLY_FSETID = f"{1 << CAP_FSETID:016x}"
NONE = "0" * 16


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """The daemon's own user namespace."""
    (tmp_path / "self" / "ns").mkdir(parents=True)
    (tmp_path / "self" / "ns" / "user").touch()
    return tmp_path


def process(proc: Path, pid: int, capabilities: str, *groups: int, elsewhere: bool = False) -> None:
    """A process with effective capabilities and supplementary groups, perhaps in another user namespace."""
    (proc / str(pid) / "ns").mkdir(parents=True)
    (proc / str(pid) / "status").write_text(
        f"Name:\tcp\nUid:\t7\t7\nGroups:\t{' '.join(map(str, groups))} \nCapPrm:\t{ALL}\nCapEff:\t{capabilities}\n"
    )
    namespace = proc / str(pid) / "ns" / "user"
    namespace.touch() if elsewhere else namespace.hardlink_to(proc / "self" / "ns" / "user")


def caller(proc: Path, uid: int, pid: int = 5, gid: int = 7) -> Caller:
    return Caller(cast("pyfuse3.RequestContext", SimpleNamespace(uid=uid, gid=gid, pid=pid)), proc=str(proc))


@pytest.mark.parametrize("uid", [0, 1000])
@pytest.mark.parametrize(
    ("capabilities", "fsetid", "admin"), [(ALL, True, True), (ONLY_FSETID, True, False), (NONE, False, False)]
)
def test_capabilities_count_and_not_the_user(
    proc: Path, uid: int, capabilities: str, fsetid: bool, admin: bool
) -> None:
    process(proc, 5, capabilities)
    assert caller(proc, uid).may(CAP_FSETID) is fsetid
    assert caller(proc, uid).may(CAP_SYS_ADMIN) is admin


@pytest.mark.parametrize("uid", [0, 100_000])
def test_capabilities_in_a_container_do_not_count(proc: Path, uid: int) -> None:
    process(proc, 5, ALL, elsewhere=True)
    assert not caller(proc, uid).may(CAP_FSETID)


def test_the_user_counts_where_proc_shows_nothing(proc: Path) -> None:
    assert caller(proc, 0).may(CAP_FSETID)
    assert not caller(proc, 1000).may(CAP_FSETID)
    (proc / "5").mkdir()
    (proc / "5" / "status").write_text("Name:\tcp\n")
    assert caller(proc, 0).may(CAP_FSETID)
    assert not caller(proc, 1000).may(CAP_FSETID)


def test_a_hidden_user_namespace_leaves_root_alone_privileged(proc: Path) -> None:
    process(proc, 5, ALL)
    (proc / "5" / "ns" / "user").unlink()
    assert caller(proc, 0).may(CAP_FSETID)
    assert not caller(proc, 1000).may(CAP_FSETID)


def test_groups(proc: Path) -> None:
    process(proc, 5, NONE, 20, 30)
    assert [gid for gid in range(40) if caller(proc, 0).in_group(gid)] == [7, 20, 30]
    assert caller(proc, 1000, pid=6).in_group(7)
    assert not caller(proc, 1000, pid=6).in_group(20)


@pytest.mark.parametrize(
    ("capabilities", "gid", "vouches"), [(NONE, 20, True), (NONE, 21, False), (ONLY_FSETID, 21, True)]
)
def test_members_and_callers_with_cap_fsetid_vouch_for_a_group(
    proc: Path, capabilities: str, gid: int, vouches: bool
) -> None:
    process(proc, 5, capabilities, 20)
    assert caller(proc, 1000).vouches_for(gid) is vouches
