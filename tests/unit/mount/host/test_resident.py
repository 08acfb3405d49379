from pathlib import Path

from deferfs.limits import DIRECTORY_COST_BYTES, INODE_COST_BYTES, RESIDENT_BASE_BYTES
from deferfs.mount.host.resident import Resident, promised_bytes, resident


def test_resident_sizes_are_those_that_the_kernel_counts(tmp_path: Path) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "status").write_text(
        "Name:\tdeferfs\nVmPeak:\t 900 kB\nVmHWM:\t   120 kB\nVmRSS:\t   100 kB\n"
    )
    assert resident(proc=str(tmp_path)) == Resident(100 * 1024, 120 * 1024)


def test_resident_sizes_are_0_where_proc_tells_nothing(tmp_path: Path) -> None:
    assert resident(proc=str(tmp_path)) == Resident(0, 0)
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "status").write_text("VmRSS:\nVmHWM:\tmany\n")
    assert resident(proc=str(tmp_path)) == Resident(0, 0)


def test_resident_sizes_of_this_process() -> None:
    found = resident()
    assert 0 < found.now_bytes <= found.highest_bytes


def test_the_promise() -> None:
    assert promised_bytes(1000, 10, 3) == 1000 + RESIDENT_BASE_BYTES + 10 * INODE_COST_BYTES + 3 * DIRECTORY_COST_BYTES
