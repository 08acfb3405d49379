"""`-o`: options of deferfs, of the kernel, and unknown ones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deferfs.errors import UsageError
from deferfs.mount.host import syscalls
from deferfs.mount.host.options import MountOptions, parse_options


def test_without_options_the_defaults_are_safe() -> None:
    options = parse_options([])
    assert options == MountOptions()
    assert options.evict == "deferred"
    assert options.writeback_cache
    assert not options.read_only
    assert options.flags == syscalls.MS_NOSUID | syscalls.MS_NODEV


def test_our_own_options() -> None:
    options = parse_options(
        [
            "evict=inline,commit=0.5,gc_workers=4,gc_in_core=7",
            "memory=64M,discard,writeback_cache=off,poll=20",
            "background_reclaim=off,handlers=4",
        ],
    )
    assert options.evict == "inline"
    assert options.commit_seconds == 0.5
    assert options.gc_workers == 4
    assert options.gc_in_core == 7
    assert options.memory_bytes == 64 << 20
    assert options.discard
    assert not options.writeback_cache
    assert options.poll_us == 20
    assert not options.background_reclaim
    assert options.handlers == 4


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("ro", syscalls.MS_RDONLY | syscalls.MS_NOSUID | syscalls.MS_NODEV),
        ("ro,rw", syscalls.MS_NOSUID | syscalls.MS_NODEV),
        ("suid,dev", 0),
        ("suid,dev,nosuid,nodev", syscalls.MS_NOSUID | syscalls.MS_NODEV),
        ("suid,dev,noexec,sync,dirsync", 8 | 16 | 128),
        ("suid,dev,noatime,relatime", syscalls.MS_RELATIME),
        ("suid,dev,relatime,noatime,nodiratime", 1024 | 2048),
        ("suid,dev,strictatime,lazytime", syscalls.MS_STRICTATIME | syscalls.MS_LAZYTIME),
    ],
)
def test_the_flags_of_the_kernel(text: str, flags: int) -> None:
    assert parse_options([text]).flags == flags


@pytest.mark.parametrize(
    "text",
    [
        "defaults,noauto,user,users,nouser,_netdev,nofail,auto,owner,group",
        "x-systemd.automount,x-systemd.idle-timeout=1min,X-mount.mkdir,comment=a=b",
        "fsname=/elsewhere,subtype=other,nonempty",
        "user=alice,uhelper=udisks2,helper=other",
        "",
        ",,",
    ],
)
def test_options_for_other_programs_are_ignored(text: str) -> None:
    assert parse_options([text]) == MountOptions()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("evict=lazy", "evict=lazy: must be deferred or inline"),
        ("background_reclaim=no", "background_reclaim=no: must be on or off"),
        ("handlers=0", "handlers=0: must be a whole number from 1 to 99"),
        ("handlers=100", "handlers=100: must be a whole number from 1 to 99"),
        ("evict", "evict needs a value"),
        ("evict=", "evict needs a value"),
        ("commit=never", "commit=never: must be a number from 0.1 to 300"),
        ("commit=0", "must be a number"),
        ("commit=nan", "must be a number"),
        ("commit=301", "must be a number"),
        ("gc_workers=0", "must be a whole number from 1 to 64"),
        ("gc_workers=1.5", "must be a whole number"),
        ("gc_workers=\u0663", "must be a whole number"),
        ("memory=1M", "must be at least 2M"),
        ("memory=lots", "option memory: 'lots' is not a size"),
        ("writeback_cache=yes", "must be on or off"),
        ("ro=1", "ro takes no value"),
        ("discard=1", "discard takes no value"),
        ("entry_timeout=-1", "must be a number"),
        ("max_read=100", "must be a whole number from 4096"),
        ("evcit=inline", "unknown mount option 'evcit=inline'"),
        ("remount", "cannot be remounted"),
    ],
)
def test_a_wrong_option_is_named(text: str, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_options([f"rw,{text}"])
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_sloppy_lets_unknown_options_pass_but_not_wrong_values() -> None:
    assert parse_options(["what,ever=1"], sloppy=True) == MountOptions()
    with pytest.raises(UsageError):
        parse_options(["evict=lazy"], sloppy=True)


def test_a_value_is_split_at_the_first_equals_sign_only() -> None:
    assert parse_options(["log=/var/log/a=b"]).log == "/var/log/a=b"


def test_a_backslash_keeps_a_comma() -> None:
    assert parse_options([r"log=a\,b,ro"]).log == "a,b"


def test_the_data_for_the_kernel() -> None:
    data = parse_options(["allow_other,max_read=65536"]).kernel_data(7, 0o40755, 0, 5)
    assert data == ("fd=7,rootmode=40755,user_id=0,group_id=5,default_permissions,allow_other,max_read=65536")


@pytest.mark.parametrize(
    ("text", "uid", "checked"),
    [
        ("", 0, False),
        ("", 1000, True),
        ("allow_other", 0, True),
        ("allow_root", 0, True),
        ("default_permissions", 0, True),
    ],
)
def test_the_kernel_checks_permissions_unless_only_root_may_enter(text: str, uid: int, checked: bool) -> None:
    assert ("default_permissions" in parse_options([text]).kernel_data(7, 0o40755, uid, 0)) == checked


def test_allow_root_is_allow_other_for_the_kernel_and_a_check_for_libfuse() -> None:
    options = parse_options(["allow_root"])
    assert "allow_other" in options.kernel_data(7, 0o40755, 0, 0)
    assert options.library_options() == {"default_permissions", "allow_root"}


def test_an_option_that_fusermount_lacks_is_refused() -> None:
    parse_options(["nosymfollow"]).check_possible(0)
    parse_options(["noexec,ro,nodiratime"]).check_possible(1000)
    with pytest.raises(UsageError, match="nosymfollow is for root only"):
        parse_options(["nosymfollow"]).check_possible(1000)


def test_the_options_for_fusermount_are_ascii_and_escaped() -> None:
    words = parse_options(["ro,noexec"]).helper_options("/a,b/\u00e9.img")
    assert words == {
        "default_permissions", "fsname=/a\\,b/?.img", "subtype=deferfs", "ro", "noexec",
    }  # fmt: skip


@given(st.text())
def test_any_text_gives_options_or_a_usage_error(text: str) -> None:
    try:
        options = parse_options([text])
    except UsageError as error:
        assert str(error)  # noqa: PT017  (either outcome is fine)
    else:
        assert isinstance(options, MountOptions)
