"""Blocks as they will be once the log is replayed."""

from __future__ import annotations

from deferfs.check import catalogue
from deferfs.check.report import Findings
from deferfs.device.base import Device


class BlockReader:
    """Reads blocks through the overlay of the log.

    `overlay` maps the home address of a logged block to the log block that holds its newest image:
    addresses only, so that a large log costs little memory. A block that the device cannot read is
    reported and comes as None.
    """

    def __init__(self, device: Device, block_size: int, findings: Findings) -> None:
        self.device = device
        self.block_size = block_size
        self.findings = findings
        self.overlay: dict[int, int] = {}

    def read(self, address: int) -> bytes | None:
        """One block; the caller has made sure that the address lies inside the image."""
        return self.read_raw(self.overlay.get(address, address))

    def read_raw(self, address: int) -> bytes | None:
        """One block as it is on the device, whatever the log says."""
        size = self.block_size
        try:
            return self.device.read(address * size, size)
        except OSError as error:
            text = f"block {address}: {error.strerror or error}"
            self.findings.add(catalogue.BLOCK_UNREADABLE, text, block=address)
            return None

    def read_run(self, address: int, count: int) -> list[bytes | None]:
        """`count` consecutive blocks, in one request where possible."""
        size, overlay = self.block_size, self.overlay
        if not overlay or not any(a in overlay for a in range(address, address + count)):
            try:
                data = self.device.read(address * size, count * size)
            except OSError:
                pass  # read them one by one, to find out which is bad
            else:
                return [data[at : at + size] for at in range(0, count * size, size)]
        return [self.read(a) for a in range(address, address + count)]
