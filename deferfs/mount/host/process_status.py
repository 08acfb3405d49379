"""/proc/PID/status of a process or a thread (proc_pid_status(5))."""

from __future__ import annotations

from typing import Final

_SIGKILL_BIT: Final = 1 << 8


def status_of(pid: int | str, *, proc: str = "/proc") -> dict[str, str]:
    """The fields by name, unparsed; empty when they cannot be read. `pid` may be `self`."""
    fields: dict[str, str] = {}
    try:
        # the kernel escapes line feeds in names, but no other line separators
        with open(f"{proc}/{pid}/status", encoding="ascii", errors="replace", newline="\n") as file:
            for line in file:
                name, _, value = line.partition(":")
                fields[name] = value
    except OSError:
        pass
    return fields


def bytes_of(fields: dict[str, str], name: str) -> int:
    """A field in kB, such as `VmRSS` or `VmHWM`, in bytes; 0 when it is missing."""
    try:
        return int(fields[name].split()[0]) * 1024
    except (KeyError, ValueError, IndexError):
        return 0


def being_killed(pid: int, *, proc: str = "/proc") -> bool:
    """Whether SIGKILL is pending for a thread; every fatal signal becomes one. False when it cannot be read."""
    fields = status_of(pid, proc=proc)
    try:
        return any(int(fields.get(name, "0"), 16) & _SIGKILL_BIT for name in ("SigPnd", "ShdPnd"))
    except ValueError:
        return False
