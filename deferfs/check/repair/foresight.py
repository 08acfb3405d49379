"""A repair with nothing written: fsck shows its outcome before it asks whether to repair."""

from __future__ import annotations

import errno
from typing import Final

from deferfs.check.context import Progress
from deferfs.check.repair.repairer import Repaired, repair_image
from deferfs.device.base import Device
from deferfs.device.overlay import OverlayDevice
from deferfs.errors import DeviceError
from deferfs.ondisk.superblock import Superblock

FORESEEN_BYTES_MAX: Final = 512 << 20
"""Bytes of changes that are kept in memory; the outcome of a repair that changes more is not known beforehand."""


def foresee_repair(
    device: Device,
    superblock: Superblock,
    now_ns: int,
    *,
    progress: Progress | None = None,
    spare: int | None = None,
) -> Repaired | None:
    """The outcome that `repair_image` would have; None when it would change too much to be known beforehand.

    ImageError when there is nothing to start from.
    """
    draft = OverlayDevice(device, superblock.block_size, FORESEEN_BYTES_MAX)
    try:
        return repair_image(draft, now_ns, progress=progress, spare=spare)
    except DeviceError as error:
        if error.errno != errno.ENOSPC:
            raise
        return None
