"""The geometry block: what mkfs prints when it has made an image, and info whenever it is asked."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from deferfs.cli.output import json_path

if TYPE_CHECKING:
    from deferfs.ondisk.superblock import Superblock


def geometry_lines(image: str, superblock: Superblock, state: str) -> list[str]:
    """key=value words, grouped by structure; byte counts are plain numbers. `state`: clean, unclean, mounted."""
    size = superblock.block_size
    journal = superblock.journal_blocks
    return [
        f"image    path={image}",
        f"         uuid={uuid.UUID(bytes=superblock.uuid)} label={_label(superblock)}",
        f"data     block_size={size} blocks={superblock.blocks} size={superblock.blocks * size}",
        f"journal  start={superblock.journal_start} blocks={journal} size={journal * size}",
        (
            f"features compatible={superblock.compatible:#x} "
            f"read_only_compatible={superblock.read_only_compatible:#x} "
            f"incompatible={superblock.incompatible:#x}"
        ),
        f"state    {state}",
    ]


def geometry_json(image: str, superblock: Superblock, state: str) -> dict[str, object]:
    """The same for programs, with the counters that change."""
    size = superblock.block_size
    return {
        **json_path("image", image),
        "uuid": str(uuid.UUID(bytes=superblock.uuid)),
        "label": _label(superblock),
        "block_size": size,
        "blocks": superblock.blocks,
        "size_bytes": superblock.blocks * size,
        "journal_start": superblock.journal_start,
        "journal_blocks": superblock.journal_blocks,
        "journal_bytes": superblock.journal_blocks * size,
        "features": {
            "compatible": superblock.compatible,
            "read_only_compatible": superblock.read_only_compatible,
            "incompatible": superblock.incompatible,
        },
        "state": state,
        "created_ns": superblock.created_ns,
        "written_ns": superblock.written_ns,
        "mounts": superblock.mounts,
    }


def state_of(superblock: Superblock) -> str:
    """The state of an image that is not mounted."""
    return "clean" if superblock.clean else "unclean"


def _label(superblock: Superblock) -> str:
    return superblock.label.decode("utf-8", "replace")
