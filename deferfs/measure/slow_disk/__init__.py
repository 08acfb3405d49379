"""A slow disk that is honest: an image file behind a loop device whose requests take as long as a stated model says.

    scenario -> filesystem -> page cache -> loop device (direct IO) -> FUSE file -> server (a process) -> image file

The server (`server`) sleeps as the queue model (`model`) tells it, by the times of a preset (`presets`). Only what
reaches the disk costs: cold reads, writes and flushes.
"""

from deferfs.measure.slow_disk.checking import SelfCheck, self_check
from deferfs.measure.slow_disk.disk import SlowDisk, SlowDiskError, missing
from deferfs.measure.slow_disk.presets import PRESETS, Preset, preset_of

__all__ = ["PRESETS", "Preset", "SelfCheck", "SlowDisk", "SlowDiskError", "missing", "preset_of", "self_check"]
