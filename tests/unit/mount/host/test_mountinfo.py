"""Reading the mount table."""

from pathlib import Path

import pytest

from deferfs.mount.host import mountinfo
from deferfs.mount.host.mountinfo import Mount

LINES = [
    "22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/root rw\n",
    "40 22 0:50 / /mnt rw,nosuid,nodev - fuse.deferfs /images/a.img rw,user_id=1000,group_id=5\n",
    "41 22 0:51 / /mnt\\040b ro - fuse.deferfs /images/with\\040space\\134.img ro\n",
    "42 40 0:52 / /mnt/inner rw shared:2 master:1 - tmpfs tmpfs rw\n",
    "malformed\n",
]


@pytest.fixture
def mounts() -> list[Mount]:
    return mountinfo.parse(LINES)


def test_lines_are_parsed_with_their_escapes(mounts: list[Mount]) -> None:
    assert mounts[1] == Mount("0:50", "/mnt", "fuse.deferfs", "/images/a.img", False, 1000, 40, 22)
    assert mounts[2] == Mount("0:51", "/mnt b", "fuse.deferfs", "/images/with space\\.img", True, 0, 41, 22)
    assert len(mounts) == 4


@pytest.mark.parametrize(
    ("path", "mountpoint"),
    [
        ("/", "/"),
        ("/mntother", "/"),
        ("/mnt", "/mnt"),
        ("/mnt/a/b", "/mnt"),
        ("/mnt/inner/a", "/mnt/inner"),
        ("/mnt b/c", "/mnt b"),
    ],
)
def test_the_mount_that_a_path_is_in(mounts: list[Mount], path: str, mountpoint: str) -> None:
    found = mountinfo.containing(path, mounts)
    assert found is not None
    assert found.mountpoint == mountpoint


def test_the_last_mount_of_one_mountpoint_counts() -> None:
    below = Mount("0:1", "/mnt", "tmpfs", "tmpfs", False, 0, 31, 22)
    above = Mount("0:2", "/mnt", "fuse.deferfs", "/a.img", False, 0, 30, 31)
    for table in ([below, above], [above, below]):  # one that was moved keeps its place in the table
        assert mountinfo.containing("/mnt/x", table) == above
        assert mountinfo.at("/mnt", table) == above
        assert mountinfo.at("/mnt/x", table) is None
        assert mountinfo.in_the_way(below, table) == above
        assert mountinfo.in_the_way(above, table) is None


def test_a_mount_over_a_directory_above_hides_what_was_mounted_below_before() -> None:
    hidden = Mount("0:1", "/mnt/a", "fuse.deferfs", "/a.img", False, 0, 30, 22)
    over = Mount("0:2", "/mnt", "tmpfs", "tmpfs", False, 0, 31, 22)
    assert mountinfo.containing("/mnt/a", [hidden, over]) == over
    assert mountinfo.in_the_way(hidden, [hidden, over]) == over
    assert mountinfo.at("/mnt/a", [hidden, over]) is None


def test_a_mount_inside_of_another_is_in_its_way(mounts: list[Mount]) -> None:
    assert mountinfo.in_the_way(mounts[1], mounts) == mounts[3]
    assert mountinfo.in_the_way(mounts[2], mounts) is None


def test_the_table_of_this_process_is_read() -> None:
    """It has /proc for sure, but not the root directory, which need not be a mount point in a container."""
    found = mountinfo.at("/proc", mountinfo.read())
    assert found is not None
    assert found.fstype == "proc"
    assert mountinfo.find_deferfs("/proc") is None


def test_a_path_may_be_in_no_mount_where_the_root_is_no_mountpoint(mounts: list[Mount]) -> None:
    inner = mounts[1:]
    assert mountinfo.containing("/etc", inner) is None
    assert mountinfo.containing("/mnt/a", inner) == mounts[1]


@pytest.mark.parametrize("space", ["\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u3000", "\xa0"])
def test_only_a_space_separates_fields(space: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel escapes blanks, tabs and line feeds in paths; what else Python takes for white space, it does not."""
    path = f"/srv/x{space}30 1 0:99 / /etc rw - fuse.deferfs /etc/shadow rw".replace(" ", r"\040")
    table = tmp_path / "mountinfo"
    table.write_bytes(f"29 1 0:50 / {path} rw,nosuid - fuse.other source rw,user_id=1000\n".encode())
    original = open
    monkeypatch.setattr("builtins.open", lambda name, *rest, **more: original(table, *rest, **more))
    (mount,) = mountinfo.read()
    assert (mount.fstype, mount.source, mount.uid) == ("fuse.other", "source", 1000)
    assert mount.mountpoint == path.replace(r"\040", " ")
