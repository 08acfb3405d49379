"""Actions on a twin, named by a word and a few small numbers.

A run is thus a list of (word, numbers): drawn by hypothesis or at random, or written down as a regression test.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Callable, Iterable, Sequence

from deferfs.crash import ace, blocking, shortage
from deferfs.crash.endings import CRASHES, ENDS, Numbers
from deferfs.crash.model import EXCHANGE, NOREPLACE, differences
from deferfs.crash.shortage import let_go, named_files
from deferfs.crash.twin_error import TwinError
from deferfs.crash.world import CLOCK_START, World, new_name, pattern
from deferfs.errors import DeviceError, FsError

NUMBER_MAX = 1 << 16

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
    """Small and inline, across the limit of inline data, overwriting, appending, or far past EOF."""
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
    """Grow a file past the size at which speculative preallocation starts."""
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


def _shred(world: World, n: Numbers) -> None:
    """Give a file more extents than one inactivation transaction frees, if space allows. Two times in three it is
    deleted at once, and inodegc starts with it.
    """
    known = world.nodes(lambda node: node.is_file and node.nlink > 0)
    if not known:
        return
    ino, block = known[n[0] % len(known)], world.shape.block_size
    count_max = world.twin.volume.store.space.available // 2
    for index in range(min(70 + n[1] % 60, count_max)):
        world.twin.write(ino, 2 * index * block, pattern(n[3] + index, 60))
    if n[2] % 3:
        for parent, name, _ in [file for file in named_files(world) if file[2] == ino]:
            world.twin.unlink(parent, name)
        let_go(world, ino)
        _inactivation_step(world, (0, 2, 0, 0))


def _remove(world: World, n: Numbers) -> None:
    """Remove a file as rm does; every other time the one with the most extents."""
    found = named_files(world)
    if not found:
        return
    nodes = world.twin.model.nodes
    largest = max(found, key=lambda file: len(nodes[file[2]].content.chunks))
    parent, name, ino = largest if n[2] % 2 else found[n[1] % len(found)]
    world.twin.unlink(parent, name)
    let_go(world, ino)


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
    """Set times: long ago, or within about an hour of the clock."""
    atime = n[1] * 10**9 if n[1] % 2 else CLOCK_START + n[1] // 2 % 8192 * 10**9
    world.twin.set_times(world.any(n[0]), atime, n[2] * 10**9 + n[3])


def _setxattr(world: World, n: Numbers) -> None:
    """Set an attribute: inline, of exactly the free size, or in chains of blocks."""
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


# --- background ---


def _fsync(world: World, n: Numbers) -> None:
    world.twin.fsync(world.any(n[0]), data_only=bool(n[1] % 2))


def _sync(world: World, n: Numbers) -> None:
    world.twin.sync()


def _commit_step(world: World, n: Numbers) -> None:
    """Begin a commit, or advance the one in progress by a few half steps."""
    driver = world.twin.driver
    if driver.committing is None:
        driver.begin_commit()
    for _ in range(n[0] % 6):
        if driver.committing is not None:
            driver.committing.step()


def _checkpoint_step(world: World, n: Numbers) -> None:
    driver = world.twin.driver
    if driver.checkpointing is None:
        driver.begin_checkpoint(keep_log=n[1] % 2 == 1)
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
    """Single steps of up to three inactivations at a time, as by concurrent workers."""
    driver = world.twin.driver
    if len(driver.inactivations) < 1 + n[1] % 3:
        driver.begin_inactivation(1 + n[0] % 3)
    if driver.inactivations:
        driver.step_inactivation(driver.inactivations[n[0] % len(driver.inactivations)])


def _bound_in_core(world: World, n: Numbers) -> None:
    """Leave orphans beyond none, one or two to the orphan table."""
    world.twin.volume.gc.in_core_max = n[0] % 3


def _remount(world: World, n: Numbers) -> None:
    """Unmount cleanly and continue with the image, which must hold everything done."""
    twin = world.twin
    twin.unmount()
    world.go_on_from(twin.device.read(0, twin.device.size))
    lines = differences(world.twin.model.nodes, twin.model.nodes)
    if lines:
        raise TwinError("mounted again after an unmount: " + "; ".join(lines))


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
LARGE: dict[str, Callable[[World, Numbers], None]] = {"remove": _remove, "shred": _shred}
"""Operations that create work for inodegc, for explorations only."""
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
    "bound_in_core": _bound_in_core,
    "remount": _remount,
}

BLOCKING = {**blocking.OPERATIONS, **blocking.BACKGROUND}
"""Requests that wait, for explorations only."""
SHORTAGE = {**shortage.OPERATIONS, **shortage.BACKGROUND}
"""Actions of a mount that is short of memory, for explorations only."""


def _ace(world: World, n: Numbers) -> None:
    ace.perform(world, n[0], n[1])


def _begin(world: World, n: Numbers) -> None:
    """Crashes before this are not explored: earlier actions only fill log, disk and caches."""
    world.first = world.twin.position


ACTIONS = {**OPERATIONS, **LARGE, **BACKGROUND, **SHORTAGE, **BLOCKING, **CRASHES, **ENDS, "ace": _ace, "begin": _begin}


def act(world: World, word: str, numbers: Sequence[int]) -> None:
    """Perform one action; no effect when it has nothing to act on."""
    a, b, c, d = (*numbers, 0, 0, 0, 0)[:4]
    ACTIONS[word](world, (a, b, c, d))


def act_all(world: World, actions: Iterable[tuple[str, Sequence[int]]]) -> None:
    """Perform all actions, or those up to the first that fails because of a disk error (`fail`). Jobs in flight are
    then completed, as in a mount, and their claims of durability are checked.
    """
    for word, numbers in actions:
        try:
            act(world, word, numbers)
        except (FsError, DeviceError) as error:
            _require_failing(world, error)
            _come_to_an_end(world)
            break


def _come_to_an_end(world: World) -> None:
    driver = world.twin.driver
    jobs = [job.finish for job in (driver.committing, driver.checkpointing) if job is not None]
    for durable in (*jobs, driver.finish_standing, driver.commit, driver.checkpoint, driver.pay):
        try:
            durable()
        except (FsError, DeviceError) as error:
            _require_failing(world, error)
    world.twin.check_access_times()


def _require_failing(world: World, error: FsError | DeviceError) -> None:
    """Raise `error` unless a failing disk explains it."""
    if not world.twin.below.failures or error.errno not in (errno.EIO, errno.EROFS):
        raise error
