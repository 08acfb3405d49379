"""The counters drawn in a timeline."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deferfs.volume.volume import Volume


def samples(volume: Volume) -> dict[str, dict[str, float]]:
    """Current values: {name: {series: value}}; sizes in bytes, the log in blocks."""
    store, gc = volume.store, volume.gc
    size = store.fmt.block_size
    return {
        "queued inodes": {f"queue {queue.number}": queue.depth for queue in gc.queues},
        "queued bytes": {f"queue {queue.number}": queue.blocks * size for queue in gc.queues},
        "log blocks": {"used": store.journal.used, "running": store.journal.running_blocks},
        "memory": {"inodes": volume.inodes.bytes, "blocks": store.cache.bytes},
    }
