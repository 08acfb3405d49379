import ctypes
import os
import subprocess
from pathlib import Path

import pytest

from deferfs.errors import EnvironmentProblem
from deferfs.measure.host import namespace
from deferfs.measure.host.namespace import private_mounts


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_what_is_mounted_inside_is_not_seen_outside(tmp_path: Path) -> None:
    before, directory = os.readlink("/proc/self/ns/mnt"), Path.cwd()
    with pytest.raises(KeyboardInterrupt), private_mounts():  # noqa: PT012
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(tmp_path)], check=True)
        assert os.path.ismount(tmp_path)
        assert os.readlink("/proc/self/ns/mnt") != before
        raise KeyboardInterrupt
    assert os.readlink("/proc/self/ns/mnt") == before
    assert not os.path.ismount(tmp_path)
    assert Path.cwd() == directory


def test_without_the_right_to_make_one(monkeypatch: pytest.MonkeyPatch) -> None:
    class Libc:
        def unshare(self, *_: object) -> int:
            ctypes.set_errno(1)
            return -1

    monkeypatch.setattr(namespace, "_LIBC", Libc())
    with pytest.raises(EnvironmentProblem, match="unshare: Operation not permitted; run as root"), private_mounts():
        pass
