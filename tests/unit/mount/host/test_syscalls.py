import os
from pathlib import Path

import pytest

from deferfs.mount.host import syscalls


@pytest.mark.mounted
@pytest.mark.parametrize("in_a_chroot", [False, True])
def test_a_process_can_leave_its_mount_namespace(in_a_chroot: bool, tmp_path: Path) -> None:
    """In a chroot too, whose root directory is no mount point."""
    before = os.readlink("/proc/self/ns/mnt")
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        namespaces = os.open("/proc/self/ns", os.O_RDONLY)
        try:
            if in_a_chroot:
                os.chroot(tmp_path)
            syscalls.leave_mount_namespace()
            os.write(writer, os.readlink("mnt", dir_fd=namespaces).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as told:
        after = told.read()
    os.waitpid(child, 0)
    assert after.startswith("mnt:")
    assert after != before
