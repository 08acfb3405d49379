import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from deferfs.errors import EnvironmentProblem
from deferfs.measure.host import namespace
from deferfs.measure.host.namespace import private_mounts


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_mounts_inside_are_not_visible_outside(tmp_path: Path) -> None:
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


_IN_A_CHROOT = """
import os, sys
from pathlib import Path
from deferfs.measure.host.namespace import private_mounts
os.chroot(sys.argv[1])
os.chdir("/here")
with private_mounts():
    print(Path("/mark").exists(), Path.cwd())
print(Path("/mark").exists(), Path.cwd())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_namespace_in_a_chroot_whose_root_is_no_mountpoint(tmp_path: Path) -> None:
    """It stays in there: setns alone would lead to the root directory of the machine."""
    for name in ("proc", "here"):
        (tmp_path / name).mkdir()
    (tmp_path / "mark").touch()
    script = 'mount --bind /proc "$1/proc" && exec "$2" -c "$3" "$1"'
    words = ["unshare", "--mount", "--propagation", "unchanged", "sh", "-c", script, "sh"]
    ran = subprocess.run([*words, str(tmp_path), sys.executable, _IN_A_CHROOT], check=True, stdout=subprocess.PIPE)
    assert ran.stdout.decode().splitlines() == ["True /here", "True /here"]
