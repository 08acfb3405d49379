"""Making a filesystem on a file or block device: whatever is wrong is found before anything is written."""

from __future__ import annotations

import os
import stat
import time
import uuid
from dataclasses import dataclass

from deferfs.device import FileDevice
from deferfs.errors import ImageError, UsageError
from deferfs.mount.daemon.image import open_image
from deferfs.ondisk.signatures import SIGNATURE_BYTES, identify
from deferfs.ondisk.superblock import Superblock
from deferfs.store.io import run_job
from deferfs.store.mkfs import Geometry, make_filesystem, plan_geometry


@dataclass(frozen=True, slots=True)
class Request:
    """What to make; sizes in bytes. `size` None: as large as what is there."""

    image: str
    size: int | None
    block_size: int
    journal_size: int | None
    label: str
    uuid_text: str | None
    force: bool = False


def format_image(request: Request, *, dry_run: bool = False) -> Superblock:
    """Make the filesystem and return its superblock. UsageError or ImageError, with nothing changed, when it
    cannot be."""
    existing = _existing_mode(request.image)
    if existing is None:
        if request.size is None:
            raise UsageError(f"{request.image}: does not exist; give --size to make it")
        geometry = _plan(request, request.size)
        if not dry_run:
            _write(FileDevice.create(request.image, request.size), geometry)
        return geometry.superblock
    device = open_image(request.image, writable=not dry_run)
    try:
        geometry = _plan(request, _size_on(device, existing, request))
        if not request.force and not dry_run:
            _refuse_content(device)
        if not dry_run and request.size is not None and stat.S_ISREG(existing) and device.size != request.size:
            device.resize(request.size)
    except BaseException:
        device.close()
        raise
    if dry_run:
        device.close()
    else:
        _write(device, geometry, old_bytes=device.size)
    return geometry.superblock


def _existing_mode(path: str) -> int | None:
    try:
        return os.stat(path).st_mode
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror}") from error


def _plan(request: Request, size: int) -> Geometry:
    try:
        return plan_geometry(
            size,
            block_size=request.block_size,
            uuid=_uuid(request.uuid_text),
            hash_key=os.urandom(16),
            now_ns=time.time_ns(),
            journal_bytes=request.journal_size,
            label=os.fsencode(request.label),
        )
    except UsageError as error:
        raise UsageError(f"{request.image}: {error}") from error


def _uuid(text: str | None) -> bytes:
    if text is None:
        return uuid.uuid4().bytes
    try:
        return uuid.UUID(text).bytes
    except ValueError as error:
        raise UsageError(f"{text!r} is not a UUID") from error


def _size_on(device: FileDevice, mode: int, request: Request) -> int:
    if request.size is None:
        return device.size
    if stat.S_ISBLK(mode) and request.size > device.size:
        raise UsageError(f"{device.name}: has only {device.size} bytes, not {request.size}")
    return request.size


def _refuse_content(device: FileDevice) -> None:
    head = device.read(0, min(SIGNATURE_BYTES, device.size))
    found = identify(head)
    if found is not None:
        raise ImageError(f"{device.name}: already contains {found}; -f overwrites it")


def _write(device: FileDevice, geometry: Geometry, *, old_bytes: int = 0) -> None:
    """Make the filesystem, owned by the running user: only root can change the owner later. The first `old_bytes` hold
    old content."""
    job = make_filesystem(geometry, uid=os.geteuid(), gid=os.getegid(), discard_bytes=old_bytes, device_bytes=old_bytes)
    try:
        run_job(device, job)
    finally:
        device.close()
