"""What pyfuse3 hands to a handler beside its arguments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import pyfuse3


@dataclass
class Context:
    """The caller: a process without readable data in /proc."""

    uid: int = 0
    gid: int = 0
    pid: int = 0
    umask: int = 0


@dataclass
class Fields:
    """What a SETATTR changes."""

    update_mode: bool = False
    update_uid: bool = False
    update_gid: bool = False
    update_size: bool = False
    update_atime: bool = False
    update_mtime: bool = False
    update_ctime: bool = False


def context(uid: int = 0) -> pyfuse3.RequestContext:
    return cast("pyfuse3.RequestContext", Context(uid=uid))
