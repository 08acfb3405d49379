"""Block devices: a file or block device, memory, and wrappers that record, delay, fail and tear.

All are synchronous and byte-addressed, and follow the `Device` protocol of `base`. None uses a clock or random numbers:
the function that a wrapper waits with, and the choice of torn sectors, are passed in.
"""

from deferfs.device.base import SECTOR_BYTES, Buffer, Device
from deferfs.device.delay import DelayingDevice, Delays
from deferfs.device.fail import FailingDevice, Fault, Request
from deferfs.device.file import FileDevice
from deferfs.device.memory import MemoryDevice
from deferfs.device.overlay import OverlayDevice
from deferfs.device.record import (
    DiscardRecord,
    FailedFlushRecord,
    FlushRecord,
    MarkRecord,
    Record,
    RecordingDevice,
    WriteRecord,
)
from deferfs.device.tear import Chooser, TearingDevice, apply_torn, keep_all, keep_none

__all__ = [
    "SECTOR_BYTES",
    "Buffer",
    "Chooser",
    "DelayingDevice",
    "Delays",
    "Device",
    "DiscardRecord",
    "FailedFlushRecord",
    "FailingDevice",
    "Fault",
    "FileDevice",
    "FlushRecord",
    "MarkRecord",
    "MemoryDevice",
    "OverlayDevice",
    "Record",
    "RecordingDevice",
    "Request",
    "TearingDevice",
    "WriteRecord",
    "apply_torn",
    "keep_all",
    "keep_none",
]
