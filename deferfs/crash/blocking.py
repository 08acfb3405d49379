"""Actions of a mount whose requests wait: for the log, memory, space, inodegc, a thaw, or to be admitted."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Final

from deferfs.crash import standing
from deferfs.crash.content import CHUNK_BYTES
from deferfs.crash.endings import Numbers
from deferfs.crash.shortage import named_files
from deferfs.crash.world import World, new_name, pattern
from deferfs.errors import FsError
from deferfs.limits import PREALLOCATION_LIFETIME_SECONDS

_STANDING_MAX: Final = 4
"""Operations that wait at the same time."""


def _full(world: World) -> bool:
    driver = world.twin.driver
    return len(driver.standing) - len(driver.inactivations) >= _STANDING_MAX


# --- operations ---
def _stand_create(world: World, n: Numbers) -> None:
    if not _full(world):
        standing.create(world.twin, world.directory(n[0]), new_name(n[1]))


def _stand_unlink(world: World, n: Numbers) -> None:
    found = named_files(world)
    if found and not _full(world):
        parent, name, _ = found[n[0] % len(found)]
        standing.unlink(world.twin, parent, name)


def _stand_setattr(world: World, n: Numbers) -> None:
    if not _full(world):
        standing.setattr(world.twin, world.any(n[0]), n[1] % 0o1000, cold=n[2] % 2 == 0)


def _stand_truncate(world: World, n: Numbers) -> None:
    ino = world.file(n[0])
    if ino is not None and not _full(world):
        standing.truncate(world.twin, ino, n[1] % (world.twin.model.nodes[ino].size + 1))


def _stand_write(world: World, n: Numbers) -> None:
    """Into the file, or over its end."""
    ino = world.file(n[0])
    if ino is not None and not _full(world):
        size, block = world.twin.model.nodes[ino].size, world.shape.block_size
        length = (40, 400, block, 3 * block + 7, 30 * block)[n[1] % 5]
        offset = (size, n[2] % (size + 1), max(0, size - length // 2))[n[2] % 3]
        standing.write(world.twin, ino, offset, pattern(world.twin.history.last << 20 | n[3], length))


def _stand_read(world: World, n: Numbers) -> None:
    """Data that has to be waited for."""
    ino = world.file(n[0])
    if ino is not None and not _full(world):
        chunks = world.twin.model.nodes[ino].size // CHUNK_BYTES + 1
        standing.read(world.twin, ino, n[1] % min(chunks, 16), 1 + n[2] % 3)


def _stand_fsync(world: World, n: Numbers) -> None:
    if not _full(world):
        standing.fsync(world.twin, world.any(n[0]), data_only=bool(n[1] % 2))


def _stand_sync(world: World, n: Numbers) -> None:
    if not _full(world):
        standing.sync(world.twin)


def _stand_forget(world: World, n: Numbers) -> None:
    known = sorted(world.twin.lookups)
    if known and not _full(world):
        standing.forget(world.twin, known[n[0] % len(known)])


def _stand_release(world: World, n: Numbers) -> None:
    if world.twin.handles and not _full(world):
        standing.release(world.twin, n[0] % len(world.twin.handles))


# --- the background ---
def _go_on(world: World, n: Numbers) -> None:
    """Advance one waiting task by a few waits, if possible; every other time its reads have to wait."""
    driver = world.twin.driver
    if driver.standing:
        chosen = driver.standing[n[0] % len(driver.standing)]
        for turn in range(1 + n[1] % 4):
            if not driver.step(chosen, cold=bool(n[2] >> turn & 1), late=n[3] % 4 == 0):
                break


def _go_on_all(world: World, n: Numbers) -> None:
    """Complete all waiting tasks."""
    world.twin.driver.finish_standing()


def _freeze(world: World, n: Numbers) -> None:
    standing.freeze(world.twin)


def _thaw(world: World, n: Numbers) -> None:
    standing.thaw(world.twin)


def _forget_many(world: World, n: Numbers) -> None:
    """One message, of which most is kept, or what is kept is counted."""
    twin = world.twin
    forgetting = twin.driver.engine.forgetting
    forgetting.keeps, forgetting.at_once = True, 2
    if n[1] % 2:
        standing.forget_all(twin, sorted(twin.lookups)[: 2 + n[0] % 6])
    elif forgetting.waiting:
        twin.driver.begin("forgets", forgetting.count_kept())


def _worker(world: World, n: Numbers) -> None:
    """A worker takes a batch when it is not to stand back, or goes on with it."""
    world.twin.driver.turn_of_worker(1 + n[0] % 6, late=n[1] % 4 == 0)


def _trims(world: World, n: Numbers) -> None:
    """Blocks past EOF are trimmed, of files that were closed or, when a look is due, of all that have them."""
    driver = world.twin.driver
    driver.engine.eviction.lifetime_seconds = (1e-9, PREALLOCATION_LIFETIME_SECONDS)[n[2] % 2]
    driver.turn_of_trims(1 + n[0] % 6, late=n[1] % 4 == 0)


def _time_of_freeze(world: World, n: Numbers) -> None:
    """Time passes, and a freeze that is overdue ends by itself."""
    driver = world.twin.driver
    driver.now_seconds += n[0] % 1000
    driver.begin_expire(world.twin.require_broken)


def _limit_backlog(world: World, n: Numbers) -> None:
    """Throttle deletes above some number of inodes, or not at all."""
    world.twin.driver.engine.throttle.inodes = (0, 1, 2, 1 << 20)[n[0] % 4]


def _rest(world: World, n: Numbers) -> None:
    """Stop inodegc for a while, or resume it; a freeze keeps it stopped."""
    cleanup, driver = world.twin.driver.engine.cleanup, world.twin.driver
    if cleanup.stopped:
        with suppress(FsError):
            cleanup.resume()
    else:
        driver.begin("stop", cleanup.stop())


def _write_back(world: World, n: Numbers) -> None:
    """The task that commits, or the one that checkpoints, does what is due by now, or goes on with it."""
    driver = world.twin.driver
    if n[0] % 2:
        driver.turn_of_commits(n[1] % 6, late=n[2] % 4 == 0)
    else:
        driver.turn_of_checkpoints(n[1] % 8)


OPERATIONS: dict[str, Callable[[World, Numbers], None]] = {
    "stand_create": _stand_create,
    "stand_unlink": _stand_unlink,
    "stand_setattr": _stand_setattr,
    "stand_truncate": _stand_truncate,
    "stand_write": _stand_write,
    "stand_read": _stand_read,
    "stand_fsync": _stand_fsync,
    "stand_sync": _stand_sync,
    "stand_forget": _stand_forget,
    "stand_release": _stand_release,
}
BACKGROUND: dict[str, Callable[[World, Numbers], None]] = {
    "go_on": _go_on,
    "go_on_all": _go_on_all,
    "freeze": _freeze,
    "thaw": _thaw,
    "time_of_freeze": _time_of_freeze,
    "limit_backlog": _limit_backlog,
    "rest": _rest,
    "write_back": _write_back,
    "worker": _worker,
    "trims": _trims,
    "forget_many": _forget_many,
}
