import os
from pathlib import Path

from deferfs.measure.host.machine import (
    describe_machine,
    filesystem_type,
    process_memory_bytes,
)

MOUNTINFO = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:25 / /dev/shm rw - tmpfs tmpfs rw
31 22 7:0 / /mnt/with\\040space rw - xfs /dev/loop0 rw
"""


def test_the_innermost_mount_decides() -> None:
    assert filesystem_type(Path("/dev/shm/x"), MOUNTINFO) == "tmpfs"
    assert filesystem_type(Path("/dev/shmoo"), MOUNTINFO) == "ext4"
    assert filesystem_type(Path("/mnt/with space/x"), MOUNTINFO) == "xfs"
    assert filesystem_type(Path("/"), "") == "unknown"


def test_a_process_is_described_and_a_dead_one_is_nothing() -> None:
    now = process_memory_bytes(os.getpid(), "VmRSS")
    assert process_memory_bytes(os.getpid()) >= now > 0
    assert process_memory_bytes(0) == 0


def test_the_description_of_this_machine() -> None:
    machine = describe_machine(Path("/proc/self"))  # a mount that there is even where the root directory is none
    assert machine.cpus >= 1
    assert machine.scratch_filesystem == "proc"


def test_below_a_root_directory_that_is_no_mount_point_the_type_is_not_guessed() -> None:
    inner = "".join(line for line in MOUNTINFO.splitlines(keepends=True) if " / / " not in line)
    assert filesystem_type(Path("/dev/shm/x"), inner) == "tmpfs"
    assert filesystem_type(Path("/etc"), inner) == "unknown"
