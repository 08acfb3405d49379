"""The kernel's report on an OOM kill: how much of the cgroup's memory was kernel memory."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Final

KMSG: Final = Path("/dev/kmsg")
RECORD_BYTES_MAX: Final = 8192
"""Bytes that a read of a record needs: CONSOLE_EXT_LOG_MAX."""
_KERNEL_MEMORY: Final = re.compile(
    r"^kmem: usage (?P<v1>\d+)kB|^slab (?P<v2>\d+)$|^Memory cgroup stats for (?P<cgroup>\S+):$", re.MULTILINE
)


class KernelLog:
    """The records of the kernel's log since construction. Empty when it cannot be read."""

    def __init__(self, path: Path = KMSG) -> None:
        self._descriptor = -1
        with contextlib.suppress(OSError):
            self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            os.lseek(self._descriptor, 0, os.SEEK_END)

    def text(self) -> str:
        """The messages since construction or the last call, one per line."""
        messages: list[str] = []
        while self._descriptor >= 0:
            try:
                record = os.read(self._descriptor, RECORD_BYTES_MAX)
            except BrokenPipeError:
                continue  # records were overwritten before they were read; continue with the next one
            except OSError:
                break
            if not record:
                break
            messages.append(os.fsdecode(record.partition(b";")[2].partition(b"\n")[0]))
        return "\n".join(messages)

    def __enter__(self) -> KernelLog:
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)


def kernel_memory_when_killed(text: str, cgroup: str) -> int:
    """Bytes of kernel memory charged to the cgroup named `cgroup` when its process was selected, according to the
    report in the log; 0 when there is none.
    """
    before = 0
    ours = False
    for found in _KERNEL_MEMORY.finditer(text):
        if found["v1"]:  # version 1 prints it before the name
            before = int(found["v1"]) * 1024
        elif found["cgroup"]:
            ours = found["cgroup"].rpartition("/")[2] == cgroup
            if ours and before:
                return before
            before = 0
        elif ours:
            return int(found["v2"])
    return 0
