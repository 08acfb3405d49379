"""Where nothing can be mounted, and what is said about it."""

import errno
import os
import stat
from pathlib import Path

import pytest

from deferfs.errors import EnvironmentProblem, MountFailedError
from deferfs.mount.host.mountpoint import check_environment, check_mountpoint


def test_a_directory_is_fine_even_if_not_empty(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert stat.S_ISDIR(check_mountpoint(str(tmp_path)))


def test_a_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(MountFailedError, match="no such directory; create it first") as raised:
        check_mountpoint(str(tmp_path / "none"))
    assert raised.value.exit_code == 32


def test_a_file_is_no_mountpoint(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MountFailedError, match="not a directory"):
        check_mountpoint(str(tmp_path / "file"))


@pytest.mark.parametrize("call", ["stat", "statvfs"])
def test_the_rest_of_a_dead_mount_is_explained(call: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def dead(path: str) -> None:
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected", path)

    monkeypatch.setattr(os, call, dead)
    with pytest.raises(MountFailedError, match=r"dead mount .* deferfs umount /"):
        check_mountpoint(str(tmp_path))


def test_a_machine_without_fuse(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="modprobe fuse") as raised:
        check_environment(fuse_device=str(tmp_path / "none"))
    assert raised.value.exit_code == 2


def test_a_device_that_this_user_may_not_open(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(EnvironmentProblem, match="may not be opened by this user; mount as root") as raised:
        check_environment(fuse_device=str(tmp_path))
    assert raised.value.exit_code == 2


def test_an_ordinary_user_needs_the_helper(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    check_environment(fuse_device=str(tmp_path), uid=0)
    with pytest.raises(EnvironmentProblem, match="fusermount3"):
        check_environment(fuse_device=str(tmp_path), uid=1000)
    (tmp_path / "fusermount3").touch(mode=0o755)
    check_environment(fuse_device=str(tmp_path), uid=1000)
