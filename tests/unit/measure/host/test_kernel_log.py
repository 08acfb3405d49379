from pathlib import Path

from deferfs.measure.host.kernel_log import KernelLog, kernel_memory_when_killed

V1 = """\
memory: usage 12544kB, limit 12544kB, failcnt 88
memory+swap: usage 12544kB, limit 9007199254740988kB, failcnt 0
kmem: usage 10040kB, limit 9007199254740988kB, failcnt 0
Memory cgroup stats for /{name}:
rss 2560000
"""
V2 = """\
memory: usage 12544kB, limit 12544kB, failcnt 88
swap: usage 0kB, limit 0kB, failcnt 0
Memory cgroup stats for /{name}:
anon 2560000
slab_reclaimable 10000000
slab 10280960
"""


def test_version_1() -> None:
    text = V1.format(name="other").replace("10040", "7") + V1.format(name="bench")
    assert kernel_memory_when_killed(text, "bench") == 10040 * 1024


def test_version_2() -> None:
    text = V2.format(name="a/other").replace("10280960", "7") + V2.format(name="a/bench")
    assert kernel_memory_when_killed(text, "bench") == 10280960


def test_other_cgroups_and_no_report() -> None:
    assert kernel_memory_when_killed(V1.format(name="other") + V2.format(name="another"), "bench") == 0
    assert kernel_memory_when_killed("", "bench") == 0


def test_a_log_that_may_not_be_read(tmp_path: Path) -> None:
    with KernelLog(tmp_path / "nothing") as log:
        assert log.text() == ""


def test_records_after_construction(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"6,1,1,-;before\n")
    with KernelLog(path) as log:
        with path.open("ab") as file:
            file.write(b"4,2,2,-;kmem: usage 4kB\n SUBSYSTEM=x\n")
        assert log.text() == "kmem: usage 4kB"
