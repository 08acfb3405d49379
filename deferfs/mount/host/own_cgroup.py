"""The memory cgroups that this process is in, version 1 and 2."""

from __future__ import annotations

import os
from collections.abc import Iterator


def own_cgroups(*, proc: str = "/proc/self/cgroup", root: str = "/sys/fs/cgroup") -> Iterator[tuple[int, str]]:
    """(version, directory) of the cgroups that account for the memory of this process."""
    try:
        with open(proc, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
            lines = file.read().split("\n")
    except OSError:
        return
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            unified = os.path.join(root, "unified")
            yield 2, os.path.join(unified if os.path.isdir(unified) else root, path.strip("/"))
        elif "memory" in controllers.split(","):
            yield 1, os.path.join(root, "memory", path.strip("/"))
