"""The `-o` options: a pure parser from strings to `MountOptions`.

Three kinds of option arrive here, because mount(8), fstab and mount.fuse pass everything on: ours (the table of
`deferfs.contract.settings`), those of the kernel (flags of mount(2) and data of its FUSE driver), and those meant for
other programs, which are ignored.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from deferfs.contract import settings
from deferfs.contract.settings import EvictMode
from deferfs.errors import UsageError
from deferfs.mount.host import syscalls


@dataclass(frozen=True, slots=True)
class MountOptions:
    """How to mount. `memory_bytes` None means: from the memory limit of the daemon's cgroup.

    `handlers`: requests handled at once, None: as many as the budget has room for. `poll_us`: how long the next
    request is looked out for at most, 0 never. `flags` are those of
    mount(2); `log` is a file for the daemon's log instead of syslog.
    """

    evict: EvictMode = settings.EVICT.default
    commit_seconds: float = settings.COMMIT.default
    gc_workers: int = settings.GC_WORKERS.default
    gc_in_core: int = settings.GC_IN_CORE.default
    memory_bytes: int | None = settings.MEMORY.default
    background_reclaim: bool = settings.BACKGROUND_RECLAIM.default
    handlers: int | None = settings.HANDLERS.default
    discard: bool = settings.DISCARD.default
    writeback_cache: bool = settings.WRITEBACK_CACHE.default
    poll_us: int = settings.POLL.default
    entry_timeout: float = settings.ENTRY_TIMEOUT.default
    attr_timeout: float = settings.ATTR_TIMEOUT.default
    log: str | None = settings.LOG.default
    allow_other: bool = settings.ALLOW_OTHER.default
    allow_root: bool = settings.ALLOW_ROOT.default
    default_permissions: bool = settings.DEFAULT_PERMISSIONS.default
    """Have the kernel check permissions even where only root may enter."""
    max_read_bytes: int | None = settings.MAX_READ.default
    at_tid: int | None = settings.AT.default
    """Show the filesystem as it was after this transaction of the log; only with `ro`."""
    flags: int = syscalls.MS_NOSUID | syscalls.MS_NODEV

    @property
    def read_only(self) -> bool:
        """Whether nothing may be changed through this mount."""
        return bool(self.flags & syscalls.MS_RDONLY)

    @property
    def durable_names(self) -> bool:
        """Whether a change of names is durable before it is answered."""
        return bool(self.flags & (syscalls.MS_SYNCHRONOUS | syscalls.MS_DIRSYNC))

    @property
    def durable_attributes(self) -> bool:
        """Whether any other change is; that of file data is the kernel's business, which sends an fsync."""
        return bool(self.flags & syscalls.MS_SYNCHRONOUS)

    def check_possible(self, uid: int) -> None:
        """UsageError when only root could have the mount that is asked for, and this user would get another."""
        if uid != 0 and self.flags & syscalls.MS_NOSYMFOLLOW:
            raise UsageError("mount option nosymfollow is for root only: fusermount3 does not know it")

    def checks_permissions(self, uid: int) -> bool:
        """Whether the kernel checks permissions on a mount of this user."""
        return self.allow_other or self.allow_root or uid != 0 or self.default_permissions

    def kernel_data(self, fd: int, root_mode: int, uid: int, gid: int) -> str:
        """The data argument of mount(2) for the kernel's FUSE driver, which talks through `fd`.

        A mount that only root may use is not asked to check permissions: root passes the checks anyway, and for each
        of them the kernel would fetch the directory's attributes anew after every change in it.
        """
        words = [f"fd={fd}", f"rootmode={root_mode:o}", f"user_id={uid}", f"group_id={gid}"]
        if self.checks_permissions(uid):
            words.append("default_permissions")
        if self.allow_other or self.allow_root:
            words.append("allow_other")
        if self.max_read_bytes is not None:
            words.append(f"max_read={self.max_read_bytes}")
        return ",".join(words)

    def library_options(self) -> set[str]:
        """The options that libfuse itself has to know, whoever calls mount(2)."""
        words = {"default_permissions"}
        if self.allow_root:
            words.add("allow_root")
        elif self.allow_other:
            words.add("allow_other")
        if self.max_read_bytes is not None:
            words.add(f"max_read={self.max_read_bytes}")
        return words

    def helper_options(self, source: str) -> set[str]:
        """The options for libfuse when fusermount3 mounts for an ordinary user: it knows words, not flags.

        pyfuse3 passes ASCII only, so other characters of the image path show as `?` in the mount table.
        """
        name = source.encode("ascii", "replace").decode()
        name = name.replace("\\", "\\\\").replace(",", "\\,")
        words = self.library_options() | {f"fsname={name}", "subtype=deferfs"}
        return words | {word for word, flag in _HELPER_WORDS.items() if self.flags & flag}


_HELPER_WORDS: Final = {
    "ro": syscalls.MS_RDONLY,
    "noexec": syscalls.MS_NOEXEC,
    "sync": syscalls.MS_SYNCHRONOUS,
    "dirsync": syscalls.MS_DIRSYNC,
    "noatime": syscalls.MS_NOATIME,
}
"""What fusermount3 lets an ordinary user ask for; it adds nosuid and nodev itself."""

_ATIME: Final = syscalls.MS_NOATIME | syscalls.MS_RELATIME | syscalls.MS_STRICTATIME
KERNEL_FLAGS: Final[dict[str, tuple[int, int]]] = {  # option -> (flags set, flags cleared)
    "ro": (syscalls.MS_RDONLY, 0),
    "rw": (0, syscalls.MS_RDONLY),
    "suid": (0, syscalls.MS_NOSUID),
    "nosuid": (syscalls.MS_NOSUID, 0),
    "dev": (0, syscalls.MS_NODEV),
    "nodev": (syscalls.MS_NODEV, 0),
    "exec": (0, syscalls.MS_NOEXEC),
    "noexec": (syscalls.MS_NOEXEC, 0),
    "sync": (syscalls.MS_SYNCHRONOUS, 0),
    "async": (0, syscalls.MS_SYNCHRONOUS),
    "dirsync": (syscalls.MS_DIRSYNC, 0),
    "atime": (0, syscalls.MS_NOATIME),
    "noatime": (syscalls.MS_NOATIME, _ATIME),
    "diratime": (0, syscalls.MS_NODIRATIME),
    "nodiratime": (syscalls.MS_NODIRATIME, 0),
    "relatime": (syscalls.MS_RELATIME, _ATIME),
    "norelatime": (0, syscalls.MS_RELATIME),
    "strictatime": (syscalls.MS_STRICTATIME, _ATIME),
    "nostrictatime": (0, syscalls.MS_STRICTATIME),
    "lazytime": (syscalls.MS_LAZYTIME, 0),
    "nolazytime": (0, syscalls.MS_LAZYTIME),
    "nosymfollow": (syscalls.MS_NOSYMFOLLOW, 0),
    "symfollow": (0, syscalls.MS_NOSYMFOLLOW),
}
IGNORED: Final = (
    "defaults",
    "auto",
    "noauto",
    "user",
    "nouser",
    "users",
    "owner",
    "noowner",
    "group",
    "nogroup",
    "_netdev",
    "nofail",
    "nonempty",
    "silent",
    "loud",
)
"""For mount(8), systemd and fstab tools; `nonempty` is always allowed."""
IGNORED_PREFIXES: Final = ("x-", "X-", "comment=", "fsname=", "subtype=", "user=", "helper=", "uhelper=")
"""The mount table always shows the image and fuse.deferfs: our own commands find a mount by them. `user=NAME` is what
some versions of mount(8) make of `user` when it is not root's mount."""


def parse_options(texts: Iterable[str], *, sloppy: bool = False) -> MountOptions:
    """Parse the arguments of all `-o`, in order; the last of several contradicting ones counts.

    UsageError names the option that is unknown or has a wrong value; `sloppy` (mount.TYPE -s) lets unknown ones
    pass.
    """
    options = MountOptions()
    for text in texts:
        for word in _split(text):
            applied = _apply(options, word)
            if applied is not None:
                options = applied
            elif not sloppy:
                raise UsageError(f"unknown mount option {word!r}; see deferfs mount --help")
    if options.at_tid is not None and not options.read_only:
        raise UsageError("mount option at= shows the past, which cannot be changed: give ro as well")
    return options


def _split(text: str) -> Iterator[str]:
    """The words between commas; a backslash keeps the next character (`fsname=a\\,b`)."""
    word: list[str] = []
    characters = iter(text)
    for character in characters:
        if character == "\\":
            word.append(next(characters, "\\"))
        elif character == ",":
            if word:
                yield "".join(word)
            word = []
        else:
            word.append(character)
    if word:
        yield "".join(word)


def _apply(options: MountOptions, word: str) -> MountOptions | None:
    """`options` with `word` applied, or None when `word` is not known."""
    if word in IGNORED or word.startswith(IGNORED_PREFIXES):
        return options
    if word == "remount":
        raise UsageError("a mounted image cannot be remounted; change it with deferfs ctl, or unmount it")
    key, equals, value = word.partition("=")
    if key in KERNEL_FLAGS:
        if equals:
            raise UsageError(f"mount option {key} takes no value (got {value!r})")
        added, cleared = KERNEL_FLAGS[key]
        return replace(options, flags=options.flags & ~cleared | added)
    setting = settings.OPTIONS.get(key)
    if setting is None:
        return None
    changes: dict[str, Any] = {setting.field: setting.option(value if equals else None)}
    return replace(options, **changes)
