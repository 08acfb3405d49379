"""Actions on a twin, named by a word and a few small numbers.

So a run is a list of (word, numbers): drawn by hypothesis, thrown by dice, or written down as a regression test.
"""

from __future__ import annotations

import functools
import itertools
import random
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from deferfs.crash.model import EXCHANGE, NOREPLACE, Node
from deferfs.crash.oracle import Verdict
from deferfs.crash.states import Shredded, Subset
from deferfs.crash.twin import Twin
from deferfs.device import Chooser, FlushRecord, MemoryDevice
from deferfs.limits import JOURNAL_BLOCKS_MIN
from deferfs.ondisk.format import Format
from deferfs.store.io import run_job
from deferfs.store.mkfs import Geometry, make_filesystem, plan_geometry

Numbers = tuple[int, int, int, int]
NUMBER_MAX = 1 << 16
SMALL_JOURNAL_BLOCKS = 96
"""Still enough for the largest single operation of these tests."""
NAMES = 14
"""Names of one directory: few, so that they collide, but more than fit inline."""


@dataclass(frozen=True)
class Shape:
    """A filesystem to test on: some `room` blocks are free in it when it is new."""

    block_size: int = 1024
    room: int = 1200
    journal_blocks: int = JOURNAL_BLOCKS_MIN
    evict: str = "deferred"
    memory_bytes: int = 64 << 20
    discard: bool = False

    @property
    def size(self) -> int:
        """Bytes."""
        fmt = Format(self.block_size, bytes(16), bytes(16))
        fixed = fmt.reserved_blocks + 1 + self.journal_blocks + 1 + fmt.chunk_blocks
        return (fixed + self.room) * self.block_size


@functools.cache
def fresh_image(shape: Shape) -> bytes:
    """An empty filesystem. Its journal may be smaller than mkfs allows, so that it wraps after a few commits."""
    missing = JOURNAL_BLOCKS_MIN - min(JOURNAL_BLOCKS_MIN, shape.journal_blocks)
    geometry = plan_geometry(
        shape.size + missing * shape.block_size,
        block_size=shape.block_size,
        uuid=b"0123456789abcdef",
        hash_key=b"fedcba9876543210",
        now_ns=1,
        journal_bytes=(shape.journal_blocks + missing) * shape.block_size,
    )
    geometry = Geometry(
        replace(
            geometry.superblock,
            blocks=geometry.superblock.blocks - missing,
            journal_blocks=shape.journal_blocks,
            inode_root=geometry.superblock.inode_root - missing,
        ),
        geometry.inode_bitmap - missing,
        geometry.first_free - missing,
    )
    device = MemoryDevice(shape.size)
    run_job(device, make_filesystem(geometry))
    return device.snapshot()


@dataclass
class World:
    """A twin and what the actions need. `cuts` counts the crash images taken directly."""

    shape: Shape
    seed: int = 0
    image: bytes | None = None
    twin: Twin = field(init=False)
    cuts: int = 0
    generation: int = 0
    """How often the world went on from a crash image."""
    _judged_before: int = 0

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        self.clock = itertools.count(1000).__next__
        self._start(fresh_image(self.shape) if self.image is None else self.image)

    def _start(self, image: bytes) -> None:
        shape = self.shape
        self.twin = Twin(
            image,
            clock=self.clock,
            dice=self.dice,
            evict=shape.evict,
            memory_bytes=shape.memory_bytes,
            discard=shape.discard,
        )

    @property
    def judged(self) -> int:
        return self._judged_before + self.twin.oracle.judged

    def do(self, word: str, numbers: Sequence[int]) -> None:
        """One action. Where there is nothing to act on, nothing happens."""
        a, b, c, d = (*numbers, 0, 0, 0, 0)[:4]
        ACTIONS[word](self, (a, b, c, d))

    # --- choosing ---
    def nodes(self, wanted: Callable[[Node], bool]) -> list[int]:
        return [ino for ino, node in sorted(self.twin.model.nodes.items()) if wanted(node)]

    def directory(self, number: int) -> int:
        """A directory; one in 16 has been deleted, if there is one in use."""
        if number % 16 == 15:
            gone = [ino for ino in self.nodes(lambda n: n.is_directory and not n.nlink) if self._in_use(ino)]
            if gone:
                return gone[number % len(gone)]
        known = self.nodes(lambda node: node.is_directory and node.nlink > 0)
        return known[number % len(known)]

    def _in_use(self, ino: int) -> bool:
        held = any(handle.inode.ino == ino for handle in self.twin.handles)
        return held or ino in self.twin.lookups

    def usable(self, wanted: Callable[[Node], bool]) -> list[int]:
        """Inodes that a process can get at: by name, or because it holds them."""
        found = self.nodes(wanted)
        return [ino for ino in found if self.twin.model.nodes[ino].nlink or self._in_use(ino)]

    def file(self, number: int) -> int | None:
        known = self.usable(lambda node: node.is_file)
        return known[number % len(known)] if known else None

    def any(self, number: int) -> int:
        known = self.usable(lambda node: True)
        return known[number % len(known)]

    def name(self, directory: int, number: int) -> bytes:
        """Three times in four a name that is there."""
        known = sorted(self.twin.model.nodes[directory].entries)
        if known and number % 4:
            return known[number // 4 % len(known)]
        return new_name(number // 4)

    # --- crashes ---
    def cut(self, position: int, choose: Chooser) -> Verdict:
        self.cuts += 1
        return self.twin.oracle.judge(position, choose)

    def go_on_from(self, image: bytes) -> None:
        """The power failed, and `image` is what is left."""
        self._judged_before += self.twin.oracle.judged
        self.generation += 1
        self._start(image)


def new_name(number: int) -> bytes:
    """One of NAMES names; some are long."""
    index = number % NAMES
    return b"n%d" % index + b"-" * (0, 0, 0, 30, 230)[index % 5]


def pattern(seed: int, length: int) -> bytes:
    """Bytes that no other seed gives, and no zeros among them."""
    return random.Random(seed).randbytes(length).replace(b"\0", b"\1")


# --- operations ---


def _create(world: World, n: Numbers) -> None:
    parent = world.directory(n[0])
    mode = (0o644, 0o600, 0o4755)[n[2] % 3]
    world.twin.create(parent, new_name(n[1]), stat.S_IFREG | mode, n[2] % 5, n[3] % 5)


def _mkdir(world: World, n: Numbers) -> None:
    mode = (0o755, 0o700, 0o2775)[n[2] % 3]
    world.twin.create(world.directory(n[0]), new_name(n[1]), stat.S_IFDIR | mode, n[2] % 5, n[3] % 5)


def _mknod(world: World, n: Numbers) -> None:
    kind = (stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK)[n[2] % 4]
    world.twin.create(world.directory(n[0]), new_name(n[1]), kind | 0o600, 0, 0, n[3] if n[2] % 4 in (1, 2) else 0)


def _symlink(world: World, n: Numbers) -> None:
    length = (3, 60, 384, 385, 1023, 4095)[n[2] % 6]
    world.twin.symlink(world.directory(n[0]), new_name(n[1]), pattern(n[3], length).replace(b"/", b"."))


def _link(world: World, n: Numbers) -> None:
    world.twin.link(world.any(n[0]), world.directory(n[1]), new_name(n[2]))


def _unlink(world: World, n: Numbers) -> None:
    parent = world.directory(n[0])
    world.twin.unlink(parent, world.name(parent, n[1]))


def _rmdir(world: World, n: Numbers) -> None:
    parent = world.directory(n[0])
    inside = world.twin.model.nodes[parent].entries
    empty = [name for name, ino in sorted(inside.items()) if world.twin.model.nodes[ino].is_directory]
    name = empty[n[1] // 4 % len(empty)] if empty and n[1] % 4 else world.name(parent, n[1])
    world.twin.rmdir(parent, name)


def _rename(world: World, n: Numbers) -> None:
    parent, new_parent = world.directory(n[0]), world.directory(n[2])
    flags = (0, 0, 0, NOREPLACE, EXCHANGE, 3)[n[1] // 256 % 6]
    world.twin.rename(parent, world.name(parent, n[1]), new_parent, world.name(new_parent, n[3]), flags)


def _write(world: World, n: Numbers) -> None:
    """Small and inline, over the edge of inline, overwriting, appending, or far out."""
    ino = world.file(n[0])
    if ino is None:
        return
    size = world.twin.model.nodes[ino].size
    block = world.shape.block_size
    length = (1, 40, 300, 400, block - 1, block, 3 * block + 7, 9 * block)[n[1] % 8]
    offset = (
        0, size, max(0, size - length // 2), size + n[2] % (2 * block), n[2] % (size + 1), n[2] * 7 % (40 * block),
        size - size % block, (1 << 32) + n[2],
    )[n[2] % 8]  # fmt: skip
    world.twin.write(ino, offset, pattern(world.twin.history.last << 20 | n[3], length))


def _append(world: World, n: Numbers) -> None:
    """Let a file grow past where speculative preallocation starts."""
    ino = world.file(n[0])
    if ino is not None:
        size = world.twin.model.nodes[ino].size
        if size < 1 << 18:
            world.twin.write(ino, size, pattern(n[3], (3000, 20_000, 66_000)[n[1] % 3]))


def _scatter(world: World, n: Numbers) -> None:
    """Many small extents: every other block."""
    ino = world.file(n[0])
    if ino is not None:
        block = world.shape.block_size
        for index in range(3 + n[1] % 30):
            world.twin.write(ino, (2 * index + n[2] % 3) * block, pattern(n[3] + index, 100))


def _truncate(world: World, n: Numbers) -> None:
    ino = world.file(n[0])
    if ino is None:
        return
    size = world.twin.model.nodes[ino].size
    block = world.shape.block_size
    target = (0, n[2] % (size + 1), size - size % block, size + n[2] % (3 * block), 200, size // 2, 1 << 33)[n[1] % 7]
    world.twin.truncate(ino, target)


def _setattr(world: World, n: Numbers) -> None:
    ino = world.any(n[0])
    changes = ({"mode": n[2] % 0o10000}, {"uid": n[2] % 9}, {"gid": n[2] % 9}, {"mode": 0o600, "uid": 3})[n[1] % 4]
    world.twin.setattr(ino, **changes)


def _set_times(world: World, n: Numbers) -> None:
    world.twin.set_times(world.any(n[0]), n[1] * 10**9, n[2] * 10**9 + n[3])


def _setxattr(world: World, n: Numbers) -> None:
    """Inline, exactly as much as fits, and in chains of blocks."""
    ino = world.any(n[0])
    length = (0, 10, 150, 340, 373, 374, 1000, 5000)[n[1] % 8]
    flags = (0, 0, 0, 1, 2)[n[2] % 5]
    world.twin.setxattr(ino, b"user.%d" % (n[2] % 3), pattern(n[3], length), flags)


def _removexattr(world: World, n: Numbers) -> None:
    known = world.usable(lambda node: bool(node.xattrs))
    ino = known[n[0] % len(known)] if known else world.any(n[0])
    world.twin.removexattr(ino, b"user.%d" % (n[1] % 3))


def _read(world: World, n: Numbers) -> None:
    ino = world.file(n[0])
    if ino is not None:
        world.twin.read(ino)


# --- references ---


def _look_up(world: World, n: Numbers) -> None:
    world.twin.look_up(world.any(n[0]))


def _forget(world: World, n: Numbers) -> None:
    known = sorted(world.twin.lookups)
    if known:
        world.twin.forget(known[n[0] % len(known)])


def _forget_all(world: World, n: Numbers) -> None:
    for ino in sorted(world.twin.lookups):
        world.twin.forget(ino)


def _open(world: World, n: Numbers) -> None:
    world.twin.open(world.any(n[0]))


def _release(world: World, n: Numbers) -> None:
    if world.twin.handles:
        world.twin.release(n[0] % len(world.twin.handles))


def _open_and_unlink(world: World, n: Numbers) -> None:
    ino = world.file(n[0])
    if ino is not None:
        world.twin.open(ino)
        for directory in world.nodes(lambda node: node.is_directory):
            for name, child in world.twin.model.nodes[directory].entries.items():
                if child == ino:
                    world.twin.unlink(directory, name)


def _policy(world: World, n: Numbers) -> None:
    world.twin.volume.set_policy(("inline", "deferred")[n[0] % 2])


# --- the background ---


def _fsync(world: World, n: Numbers) -> None:
    world.twin.fsync(world.any(n[0]), data_only=bool(n[1] % 2))


def _sync(world: World, n: Numbers) -> None:
    world.twin.sync()


def _commit_step(world: World, n: Numbers) -> None:
    """Begin a commit, or bring the one in flight on by a few half steps."""
    driver = world.twin.driver
    if driver.committing is None:
        driver.begin_commit()
    for _ in range(n[0] % 6):
        if driver.committing is not None:
            driver.committing.step()


def _checkpoint_step(world: World, n: Numbers) -> None:
    driver = world.twin.driver
    if driver.checkpointing is None:
        driver.begin_checkpoint()
    for _ in range(n[0] % 8):
        if driver.checkpointing is not None:
            driver.checkpointing.step()


def _checkpoint(world: World, n: Numbers) -> None:
    world.twin.driver.checkpoint()


def _collect(world: World, n: Numbers) -> None:
    world.twin.driver.collect(1 + n[0] % 3)


def _collect_all(world: World, n: Numbers) -> None:
    world.twin.driver.finish_inactivations()
    world.twin.driver.collect()


def _inactivation_step(world: World, n: Numbers) -> None:
    """Single steps of up to three inactivations at a time, as concurrent workers take them."""
    driver, gc = world.twin.driver, world.twin.volume.gc
    if len(driver.inactivations) < 1 + n[1] % 3:
        for inode in gc.take(1):
            begun = driver.begin_inactivation(inode)
            if begun is None:
                gc.done(inode)
            else:
                driver.inactivations.append(begun)
    if driver.inactivations:
        chosen = driver.inactivations[n[0] % len(driver.inactivations)]
        if driver.step_inactivation(chosen):
            driver.inactivations.remove(chosen)
            gc.done(chosen.inode)


def _remount(world: World, n: Numbers) -> None:
    """Unmount cleanly and go on with the image."""
    twin = world.twin
    twin.driver.close()
    world.go_on_from(twin.device.read(0, twin.device.size))


# --- crashes ---


def _chooser(n: Numbers, writes: int) -> Chooser:
    """What is left of so many unflushed writes."""
    everything = (1 << writes) - 1
    random_bits = random.Random(n[2]).getrandbits(writes + 64)
    if n[1] % 5 == 0:
        return Shredded(n[2], (0, 1, 4, 7, 8)[n[3] % 5])
    if n[1] % 5 == 1:
        return Subset(random_bits, n[3] % (writes + 1), random_bits >> writes)
    if n[1] % 5 == 2:
        return Subset((1 << n[2] % (writes + 1)) - 1)
    if n[1] % 5 == 3:
        return Subset(everything ^ 1 << n[2] % (writes + 1))
    return Subset(everything ^ (1 << n[2] % (writes + 1)) - 1)


def _moment(world: World, number: int, back: int) -> int:
    """A position in the last `back` records: half of the time just before a flush, where most is at stake."""
    records = world.twin.device.records
    last = len(records)
    first = max(0, last - back)
    flushes = [at for at in range(first, last) if isinstance(records[at], FlushRecord)]
    if number % 2 and flushes:
        return max(first, flushes[number // 2 % len(flushes)] - number // 64 % 2)
    return last - number // 2 % (last - first + 1)


def _take(world: World, n: Numbers, back: int) -> Verdict:
    position = _moment(world, n[0], back)
    return world.cut(position, _chooser(n, len(world.twin.oracle.states.unflushed(position))))


def _cut(world: World, n: Numbers) -> None:
    """The power fails at some moment; what is left is judged, and the world goes on as if nothing had been."""
    _take(world, n, 60)


def _crash(world: World, n: Numbers) -> None:
    """The power fails, and the world goes on from what is left."""
    world.go_on_from(_take(world, n, 20).image)


OPERATIONS: dict[str, Callable[[World, Numbers], None]] = {
    "create": _create,
    "mkdir": _mkdir,
    "mknod": _mknod,
    "symlink": _symlink,
    "link": _link,
    "unlink": _unlink,
    "rmdir": _rmdir,
    "rename": _rename,
    "write": _write,
    "append": _append,
    "scatter": _scatter,
    "truncate": _truncate,
    "setattr": _setattr,
    "set_times": _set_times,
    "setxattr": _setxattr,
    "removexattr": _removexattr,
    "read": _read,
    "look_up": _look_up,
    "forget": _forget,
    "forget_all": _forget_all,
    "open": _open,
    "release": _release,
    "open_and_unlink": _open_and_unlink,
}
BACKGROUND: dict[str, Callable[[World, Numbers], None]] = {
    "fsync": _fsync,
    "sync": _sync,
    "commit_step": _commit_step,
    "checkpoint_step": _checkpoint_step,
    "checkpoint": _checkpoint,
    "collect": _collect,
    "collect_all": _collect_all,
    "inactivation_step": _inactivation_step,
    "policy": _policy,
    "remount": _remount,
}
CRASHES: dict[str, Callable[[World, Numbers], None]] = {"cut": _cut, "crash": _crash}
ACTIONS = {**OPERATIONS, **BACKGROUND, **CRASHES}
SELDOM = frozenset({"forget_all", "policy", "remount", "rmdir", "set_times", "mknod", "collect_all", "checkpoint", "removexattr"})
CHECKPOINTS = frozenset({"checkpoint", "checkpoint_step", "remount"})
OFTEN = frozenset({"create", "write", "link", "rename", "commit_step", "checkpoint_step", "inactivation_step"})


def weighted(words: Iterable[str]) -> list[str]:
    """Each word as often as it should be drawn, in an order that is always the same."""
    return [word for word in sorted(words) for _ in range(1 if word in SELDOM else 5 if word in OFTEN else 3)]


def throw(dice: random.Random) -> Numbers:
    """Four numbers."""
    a, b, c, d = (dice.randrange(NUMBER_MAX) for _ in range(4))
    return a, b, c, d


def random_actions(
    dice: random.Random,
    count: int,
    *,
    cuts_percent: float = 0,
    crashes_percent: float = 0,
    checkpoints: bool = True,
    background_percent: float = 25,
) -> Iterator[tuple[str, Numbers]]:
    """A long run: mostly operations, some of it the background, and crashes.

    Without `checkpoints` there are only those that a full log makes necessary; with little background also large
    transactions.
    """
    operations = weighted(OPERATIONS)
    background = weighted(word for word in BACKGROUND if checkpoints or word not in CHECKPOINTS)
    for _ in range(count):
        roll = 100 * dice.random()
        if roll < crashes_percent:
            word = "crash"
        elif roll < crashes_percent + cuts_percent:
            word = "cut"
        else:
            word = dice.choice(background if 100 * dice.random() < background_percent else operations)
        yield word, throw(dice)


def random_shape(dice: random.Random) -> Shape:
    """Small, so that the log wraps and freed blocks are used again soon; half of the time very small."""
    return Shape(
        room=dice.choice((150, 1200)),
        journal_blocks=dice.choice((SMALL_JOURNAL_BLOCKS, JOURNAL_BLOCKS_MIN)),
        evict=dice.choice(("inline", "deferred")),
        memory_bytes=dice.choice((64 << 20, 160 << 10)),
        discard=dice.random() < 0.25,
    )


def random_world(dice: random.Random, *, warm: int, count: int, cuts_percent: float, crashes_percent: float) -> World:
    """A world after a random run: first `warm` actions to fill the log and the disk, then `count` with crashes."""
    world = World(random_shape(dice), dice.getrandbits(32))
    pace = functools.partial(
        random_actions, dice, checkpoints=dice.random() < 0.5, background_percent=dice.choice((25, 25, 5))
    )
    for word, numbers in pace(warm):
        world.do(word, numbers)
    for word, numbers in pace(count, cuts_percent=cuts_percent, crashes_percent=crashes_percent):
        world.do(word, numbers)
    world.twin.verify()
    return world


def replay(actions: Sequence[tuple[str, Sequence[int]]], shape: Shape | None = None, seed: int = 0) -> World:
    """Do the actions in a new world, and compare volume and model at the end."""
    world = World(shape or Shape(), seed)
    for word, numbers in actions:
        world.do(word, numbers)
    world.twin.verify()
    return world
