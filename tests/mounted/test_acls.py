"""Access control lists with the system's own tools, where the kernel enforces them and on a mount that only root
may enter.
"""

from __future__ import annotations

import stat

import pytest

from tests.mounted.scratch import Scratch, run

pytestmark = [pytest.mark.mounted, pytest.mark.needs("getfacl", "setfacl")]


@pytest.mark.parametrize("options", [(), ("allow_other",), ("writeback_cache=off",)], ids=["root", "others", "through"])
def test_setfacl_and_getfacl(plain: Scratch, options: tuple[str, ...]) -> None:
    """The mode that stat(2) tells is in step at once, and all is the same after a remount."""
    mount = plain.mount(*options)
    path = mount / "directory" / "file"
    path.parent.mkdir()
    run("setfacl", "-m", "u:1001:rwx,g:2000:r-x", path.parent)
    run("setfacl", "-d", "-m", "u:1001:rwx", path.parent)
    path.write_text("content")
    assert stat.S_IMODE(path.stat().st_mode) == 0o664, "by the default list, whatever the umask"
    path.chmod(0o600)
    run("setfacl", "-m", "u:1002:r--", path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o670, "the mask is computed anew from all named entries"
    for _ in range(2):
        assert acl_of(path) == ["user::rw-", "user:1001:rwx", "user:1002:r--", "group::r-x", "mask::rwx", "other::---"]
        assert "default:user:1001:rwx" in acl_of(path.parent)
        assert "group:2000:r-x" in acl_of(path.parent)
        assert stat.S_IMODE(path.stat().st_mode) == 0o670
        plain.remount(*options)
    run("setfacl", "-b", path)
    assert acl_of(path) == ["user::rw-", "group::r-x", "other::---"]
    plain.unmount_and_check()


def acl_of(path: object) -> list[str]:
    text = run("getfacl", "--omit-header", "--numeric", "--no-effective", "--absolute-names", str(path)).stdout
    return [line for line in text.splitlines() if line]
