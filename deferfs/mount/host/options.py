"""The `-o` options: a pure parser from strings to `MountOptions`.

mount(8), fstab and mount.fuse pass on three kinds of option: ours (the table in `deferfs.contract.settings`), those of
the kernel (flags of mount(2) and data of its FUSE driver), and those for other programs, which are ignored.
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
    """How to mount. `memory_bytes` None: derived from the memory limit of the daemon's cgroup.

    `handlers`: maximum of requests handled at once, None: as many as fit into the budget. `poll_us`: maximum of busy
    polling for the next request, 0: never. `flags` are those of mount(2); `log` is a file for the daemon's log instead
    of syslog.
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
    """Have the kernel check permissions even where only root has access."""
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
        """Whether a change of a directory is durable before its reply."""
        return bool(self.flags & (syscalls.MS_SYNCHRONOUS | syscalls.MS_DIRSYNC))

    @property
    def durable_attributes(self) -> bool:
        """Whether any other change is durable before its reply; for file data the kernel sends an fsync."""
        return bool(self.flags & syscalls.MS_SYNCHRONOUS)

    def check_possible(self, uid: int) -> None:
        """UsageError for options that only root can use, which would be ignored for this user."""
        if uid != 0 and self.flags & syscalls.MS_NOSYMFOLLOW:
            raise UsageError("mount option nosymfollow is for root only: fusermount3 does not know it")

    def checks_permissions(self, uid: int) -> bool:
        """Whether the kernel checks permissions on a mount of this user."""
        return self.allow_other or self.allow_root or uid != 0 or self.default_permissions

    def kernel_data(self, fd: int, root_mode: int, uid: int, gid: int) -> str:
        """The data argument of mount(2) for the kernel's FUSE driver, connected by `fd`.

        On a mount that only root may use the kernel is not asked to check permissions: root passes the checks anyway,
        and for each check the kernel would fetch the directory's attributes again after every change in it.
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
        """The options that libfuse itself needs, whether mount(2) is called by it or by deferfs."""
        words = {"default_permissions"}
        if self.allow_root:
            words.add("allow_root")
        elif self.allow_other:
            words.add("allow_other")
        if self.max_read_bytes is not None:
            words.add(f"max_read={self.max_read_bytes}")
        return words

    def helper_options(self, source: str) -> set[str]:
        """The options for libfuse when fusermount3 mounts for an ordinary user: it takes words instead of flags.

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
"""Options that fusermount3 accepts from an ordinary user; it adds nosuid and nodev itself."""

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
"""The mount table always shows the image and fuse.deferfs, by which our own commands find a mount. Some versions of
mount(8) turn `user` into `user=NAME` on mounts of ordinary users."""


def parse_options(texts: Iterable[str], *, sloppy: bool = False) -> MountOptions:
    """Parse the arguments of all `-o`, in order; the last of contradicting options counts.

    UsageError names an unknown option, or one with a wrong value; `sloppy` (mount.TYPE -s) ignores unknown ones.
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
        raise UsageError("mount option at= requires ro: a past state cannot be changed")
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
    """`options` with `word` applied, or None for an unknown word."""
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
