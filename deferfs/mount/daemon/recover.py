"""Recovery without a mount: fsck's first step for an image that was not closed cleanly."""

from __future__ import annotations

import os
import time

from deferfs.device import FileDevice
from deferfs.errors import DeviceError, FsError, ImageError
from deferfs.volume.driver import Driver


def recover_image(device: FileDevice) -> None:
    """Replay the log, inactivate the orphans, and mark the image clean. Closes `device`."""
    try:
        driver = Driver.open(device, clock=time.time_ns, entropy=_entropy)
        driver.close()
    except FsError as error:
        raise ImageError(f"{device.name}: cannot be recovered: {error}") from error
    except DeviceError as error:
        raise ImageError(f"{device.name}: {error.strerror}") from error


def _entropy() -> int:
    return int.from_bytes(os.urandom(4), "little")
