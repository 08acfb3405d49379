"""What the crash tests have found, each reduced to the shortest run that shows it."""

from __future__ import annotations

import errno
import itertools

import pytest

from deferfs.crash.examination import require_sound
from deferfs.crash.model import ROOT
from deferfs.crash.stepping import SteppingDriver
from deferfs.crash.steps import Stepper
from deferfs.crash.world import Shape, fresh_image
from deferfs.device import MemoryDevice, TearingDevice
from deferfs.errors import DeviceError, FsError
from deferfs.store.io import Flush
from deferfs.volume import namespace
from deferfs.volume.new_inode import NewInode


class ForgetfulDevice(TearingDevice):
    """A disk cache that drops what it could not write: a flush that fails loses all unflushed writes, and the next one
    succeeds, as fsync does on most filesystems.
    """

    fails = False

    def flush(self) -> None:
        """Fail once, when `fails` is set."""
        if self.fails:
            self.fails = False
            self.inner.write(0, self.durable())
            super().flush()
            raise DeviceError(errno.EIO, "flush: lost", self.name)
        super().flush()


def _with_both_jobs_before_a_flush() -> tuple[ForgetfulDevice, SteppingDriver]:
    """File `old` is committed and on its way home; file `new` is being committed. Either job waits for its flush."""
    device = ForgetfulDevice(MemoryDevice.from_bytes(fresh_image(Shape())))
    driver = SteppingDriver.open(device, clock=itertools.count(1).__next__, entropy=lambda: 7)
    driver.run(namespace.create, driver.volume, ROOT, b"old", NewInode(0o100644))
    driver.commit()
    driver.run(namespace.create, driver.volume, ROOT, b"new", NewInode(0o100644))
    driver.begin_checkpoint()
    driver.begin_commit()
    for job in (driver.checkpointing, driver.committing):
        assert job is not None
        _step_to_flush(job)
    return device, driver


def _step_to_flush(job: Stepper) -> None:
    while not isinstance(job.request, Flush):
        job.step()


def test_a_commit_in_flight_fails_with_the_checkpoint() -> None:
    """The flush that failed may have lost what the commit had written: its own flush proves nothing any more."""
    device, driver = _with_both_jobs_before_a_flush()
    assert driver.checkpointing is not None
    assert driver.committing is not None
    device.fails = True
    with pytest.raises(FsError):
        driver.checkpointing.finish()
    with pytest.raises(FsError, match="EIO"):
        driver.committing.finish()


def test_a_checkpoint_in_flight_fails_with_the_commit() -> None:
    """The flush that failed may have lost images on their way home: the log must keep them."""
    device, driver = _with_both_jobs_before_a_flush()
    assert driver.checkpointing is not None
    assert driver.committing is not None
    device.fails = True
    with pytest.raises(FsError):
        driver.committing.finish()
    with pytest.raises(FsError, match="EIO"):
        driver.checkpointing.finish()
    image = device.durable()
    require_sound(image, "after the failure")
    again = SteppingDriver.open(MemoryDevice.from_bytes(image), clock=itertools.count(1).__next__, entropy=lambda: 7)
    assert again.run(namespace.lookup, again.volume, ROOT, b"old").nlink == 1
