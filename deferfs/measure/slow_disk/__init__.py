"""A reproducible slow disk: an image file behind a loop device, with latencies from a stated model.

    scenario -> filesystem -> page cache -> loop device (direct IO) -> FUSE file -> server (a process) -> image file

The server (`server`) sleeps as long as the queue model (`model`) says, with the times of a preset (`presets`). Only
requests that reach the disk take time: cold reads, writes and flushes.
"""

from deferfs.measure.slow_disk.checking import SelfCheck, self_check
from deferfs.measure.slow_disk.disk import SlowDisk, SlowDiskError, missing
from deferfs.measure.slow_disk.presets import PRESETS, Preset, preset_of

__all__ = ["PRESETS", "Preset", "SelfCheck", "SlowDisk", "SlowDiskError", "missing", "preset_of", "self_check"]
