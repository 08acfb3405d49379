"""Permissions decided by the adapter: privileges of executables, access control lists, hidden names."""

from __future__ import annotations

import errno
import os
import stat
from typing import cast

import pyfuse3
import pytest

from deferfs.mount.fuse.callers import CAP_FSETID, Caller
from deferfs.volume import acl
from tests.unit.mount.fuse.requests import Context, Fields, context
from tests.unit.mount.kernels import ROOT, Kernel, fails


async def test_callers_without_privilege_clear_set_id_bits(kernel: Kernel) -> None:
    ino, _ = await kernel.create(b"program")

    async def mode() -> int:
        return stat.S_IMODE((await kernel.adapter.getattr(ino, context())).st_mode)

    async def privileged() -> None:
        assert stat.S_IMODE((await kernel.setattr(ino, mode=0o6755)).st_mode) == 0o6755

    await privileged()
    await kernel.setattr(ino, uid=1000)  # a write by an ordinary user begins: nothing is set
    assert await mode() == 0o755
    await privileged()
    await kernel.adapter.open(ino, os.O_WRONLY | os.O_TRUNC, context(1000))
    assert await mode() == 0o755
    for uid, left in ((0, 0o6755), (1000, 0o755)):
        await privileged()
        await kernel.setattr(ino, uid=uid, size=5)
        assert await mode() == left
        await kernel.adapter.open(ino, os.O_WRONLY | os.O_TRUNC, context(uid))
        assert await mode() == left


@pytest.mark.parametrize(("fsetid", "left"), [(True, 0o6755), (False, 0o755)])
async def test_capabilities_decide_and_not_the_user(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, fsetid: bool, left: int
) -> None:
    monkeypatch.setattr(Caller, "may", lambda self, capability: fsetid and capability == CAP_FSETID)
    ino, _ = await kernel.create(b"program")
    for uid in (0, 1000):
        await kernel.setattr(ino, mode=0o6755)
        assert stat.S_IMODE((await kernel.setattr(ino, uid=uid, size=5)).st_mode) == left
        await kernel.setattr(ino, mode=0o6755)
        await kernel.adapter.open(ino, os.O_WRONLY | os.O_TRUNC, context(uid))
        assert stat.S_IMODE((await kernel.adapter.getattr(ino, context())).st_mode) == left


async def test_set_group_id_of_what_is_no_program_is_left_to_members(kernel: Kernel) -> None:
    """Without group execution it once meant mandatory locking; a caller outside the group clears it all the same."""
    ino, _ = await kernel.create(b"file")
    await kernel.setattr(ino, gid=77)
    for gid, left in ((77, 0o2644), (78, 0o644)):
        await kernel.setattr(ino, mode=0o2644)
        writer = cast("pyfuse3.RequestContext", Context(uid=1000, gid=gid))
        entry = await kernel.adapter.setattr(
            ino, pyfuse3.EntryAttributes(), cast("pyfuse3.SetattrFields", Fields()), None, writer
        )
        assert stat.S_IMODE(entry.st_mode) == left


async def test_a_failed_truncate_keeps_privileges(kernel: Kernel) -> None:
    ino, _ = await kernel.create(b"program")
    await kernel.setattr(ino, mode=0o6755)
    with fails(errno.EFBIG):
        await kernel.setattr(ino, uid=1000, size=1 << 50)
    assert stat.S_IMODE((await kernel.adapter.getattr(ino, context())).st_mode) == 0o6755


async def test_a_new_owner_takes_the_privileges_away(kernel: Kernel) -> None:
    ino, _ = await kernel.create(b"program")
    await kernel.setattr(ino, mode=0o6755)
    attr = pyfuse3.EntryAttributes()
    attr.st_uid = 1000
    fields = cast("pyfuse3.SetattrFields", Fields(update_uid=True))
    entry = await kernel.adapter.setattr(ino, attr, fields, None, context())
    assert stat.S_IMODE(entry.st_mode) == 0o755
    assert entry.st_uid == 1000


LIST = acl.encode(
    [acl.Entry(1, 7, 0xFFFFFFFF), acl.Entry(2, 6, 1001), acl.Entry(4, 0, 0xFFFFFFFF), acl.Entry(16, 6, 0xFFFFFFFF),
     acl.Entry(32, 0, 0xFFFFFFFF)]
)  # fmt: skip
"""Rights for one named user, which the permission bits 0760 go with."""


async def test_an_access_list_changes_the_mode_and_the_kernel_hears_of_it(kernel: Kernel) -> None:
    told: list[int] = []
    kernel.adapter.invalidate_attributes = told.append
    ino, _ = await kernel.create(b"file")
    await kernel.adapter.setxattr(ino, acl.ACCESS, LIST, context())
    assert stat.S_IMODE((await kernel.adapter.getattr(ino, context())).st_mode) == 0o760
    assert told == [ino]
    assert await kernel.adapter.getxattr(ino, acl.ACCESS, context()) == LIST


@pytest.mark.parametrize(("uid", "gid", "kept"), [(0, 0, True), (1000, 77, True), (1000, 1000, False)])
async def test_a_list_set_from_outside_of_the_group_clears_set_group_id(
    kernel: Kernel, uid: int, gid: int, kept: bool
) -> None:
    ino, _ = await kernel.create(b"file")
    await kernel.setattr(ino, uid=1000, gid=77)
    await kernel.setattr(ino, mode=0o2755)
    setter = cast("pyfuse3.RequestContext", Context(uid=uid, gid=gid))
    await kernel.adapter.setxattr(ino, acl.ACCESS, LIST, setter)
    assert bool((await kernel.adapter.getattr(ino, context())).st_mode & stat.S_ISGID) is kept


async def test_the_umask_is_applied_unless_there_is_a_default_list(kernel: Kernel) -> None:
    context_ = cast("pyfuse3.RequestContext", Context(umask=0o077))
    made = await kernel.adapter.mkdir(ROOT, b"directory", 0o777, context_)
    assert stat.S_IMODE(made.st_mode) == 0o700
    await kernel.adapter.setxattr(made.st_ino, acl.DEFAULT, LIST, context())
    _, inner = await kernel.adapter.create(made.st_ino, b"file", 0o666, os.O_RDWR, context_)
    assert stat.S_IMODE(inner.st_mode) == 0o660


async def test_trusted_attributes_are_for_root(kernel: Kernel) -> None:
    for name in (b"trusted.a", b"user.a"):
        await kernel.adapter.setxattr(ROOT, name, b"x", context())
    assert list(await kernel.adapter.listxattr(ROOT, context())) == [b"trusted.a", b"user.a"]
    assert list(await kernel.adapter.listxattr(ROOT, context(1000))) == [b"user.a"]


async def test_only_programs_can_be_executed(kernel: Kernel) -> None:
    """Asked where only root may enter; all else is allowed to him."""
    ino, _ = await kernel.create(b"file")
    for mode, executes in ((0o644, False), (0o100, True), (0o010, True), (0o001, True)):
        await kernel.setattr(ino, mode=mode)
        assert await kernel.adapter.access(ino, os.X_OK, context()) is executes
        assert await kernel.adapter.access(ino, os.X_OK | os.R_OK, context()) is executes
        assert await kernel.adapter.access(ino, os.R_OK | os.W_OK, context())
    assert await kernel.adapter.access(ROOT, os.X_OK, context())
