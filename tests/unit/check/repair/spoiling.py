"""Damage of whole blocks, by chance."""

from __future__ import annotations

from random import Random

from tests.unit.check.image import Image


def spoil_blocks(image: Image, random: Random, metadata: list[int]) -> set[int]:
    """Damage some blocks, most of them metadata; which."""
    size = image.fmt.block_size
    hit: set[int] = set()
    for _ in range(random.randint(1, 4)):
        block = random.choice(metadata) if random.random() < 0.7 else random.randrange(image.superblock.blocks)
        content = bytearray(image.raw(block))
        kind = random.choice(["flip", "run", "swap", "repeat", "clear"])
        other = random.choice(metadata)
        if kind == "flip":
            content[random.randrange(size)] ^= 1 << random.randrange(8)
        elif kind == "run":
            run = random.randbytes(random.randint(1, 64))
            at = random.randrange(size - len(run))
            content[at : at + len(run)] = run
        elif kind == "clear":
            content = bytearray(size)
        elif kind == "repeat":
            content = bytearray(image.raw(other))
        else:
            content, old = bytearray(image.raw(other)), bytes(content)
            image.put_raw(other, old)
            hit.add(other)
        image.put_raw(block, bytes(content))
        hit.add(block)
    return hit
