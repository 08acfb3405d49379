"""Actions of a mount that is short of memory: idle inodes are evicted and owe an access time, which is written later;
clean blocks are evicted, even right after they have been written home.
"""

from __future__ import annotations

import stat
from collections.abc import Callable
from typing import Final

from deferfs.crash.endings import Numbers
from deferfs.crash.twin import Twin
from deferfs.crash.twin_error import TwinError
from deferfs.crash.world import World
from deferfs.limits import INODE_COST_BYTES
from deferfs.reclaim.debts import COUNT_SHARE
from deferfs.store.io import Write

CROWD_NAMES: Final = 48
"""Names that the action `crowd` makes."""


def named_files(world: World) -> list[tuple[int, bytes, int]]:
    """(directory, name, inode) of every non-directory."""
    nodes = world.twin.model.nodes
    parents = sorted(ino for ino, node in nodes.items() if node.is_directory)
    return [
        (parent, name, ino)
        for parent in parents
        for name, ino in sorted(nodes[parent].entries.items())
        if not nodes[ino].is_directory
    ]


def let_go(world: World, ino: int) -> None:
    """Close all handles of the inode, and let the kernel forget it."""
    twin = world.twin
    while (held := next((i for i, handle in enumerate(twin.handles) if handle.inode.ino == ino), -1)) >= 0:
        twin.release(held)
    if ino in twin.lookups:
        twin.forget(ino)


def _debtors(world: World) -> list[int]:
    debts = world.twin.volume.inodes.debts
    return sorted(debts.debtors(0, debts.slots))


def _debtor(world: World, number: int) -> int | None:
    """An inode that owes an access time, not in core if possible."""
    known = _debtors(world) or sorted(world.twin.access_times.owed)
    return known[number % len(known)] if known else None


# --- operations ---
def _access(world: World, n: Numbers) -> None:
    """Access a file: look up, read, and two times in three a FORGET soon after."""
    ino = world.any(n[0])
    twin = world.twin
    twin.look_up(ino)
    (twin.read if twin.model.nodes[ino].is_file else twin.access)(ino)
    if n[1] % 3:
        twin.forget(ino)


def _crowd(world: World, n: Numbers) -> None:
    """Create, read and forget files of a directory: more than fit into the cached part of the inode table."""
    twin, parent = world.twin, world.directory(n[0])
    for index in range(6 + n[1] % 20):
        name = b"crowd-%d" % ((n[2] + index) % CROWD_NAMES)
        ino = twin.create(parent, name, stat.S_IFREG | 0o644)
        if ino is not None:
            twin.read(ino)
            twin.forget(ino)


def _remove_debtor(world: World, n: Numbers) -> None:
    """Delete an inode that owes; every other time its number is reused at once."""
    ino = _debtor(world, n[0])
    names = [file for file in named_files(world) if file[2] == ino]
    if ino is None or not names:
        return
    twin = world.twin
    for parent, name, _ in names:
        twin.unlink(parent, name)
    let_go(world, ino)
    if n[1] % 2:
        twin.driver.collect()
        parent, name, _ = names[0]
        again = twin.create(parent, name, stat.S_IFREG | 0o600)
        if again is not None and n[2] % 2:
            twin.forget(again)


def _set_time_of_debtor(world: World, n: Numbers) -> None:
    """Set the access time of an inode that owes."""
    ino = _debtor(world, n[0])
    if ino is not None:
        twin = world.twin
        twin.set_times(ino, twin.model.nodes[ino].times[3] - n[1], n[2])


def _change_debtor(world: World, n: Numbers) -> None:
    """Change an inode that owes in another way; the debts of its table block are written along."""
    ino = _debtor(world, n[0])
    if ino is not None:
        world.twin.setattr(ino, mode=n[1] % 0o1000)


def _look_up_debtor(world: World, n: Numbers) -> None:
    """Bring an inode back into core with its debt; every other time only briefly."""
    ino = _debtor(world, n[0])
    if ino is not None:
        world.twin.look_up(ino)
        if n[1] % 2:
            world.twin.forget(ino)


def _set_clock(world: World, n: Numbers) -> None:
    """Set the clock of the machine, by up to an hour."""
    world.clock.ahead += n[0] % 20_000 - 10_000


# --- the background ---
def _hand_over(world: World, n: Numbers) -> None:
    """Evict some idle inodes, as an operation does when memory is short."""
    world.twin.under_pressure((1 + n[0] % 12) * INODE_COST_BYTES)


def _hand_over_all(world: World, n: Numbers) -> None:
    """Evict everything that the kernel does not refer to, inodes first."""
    twin = world.twin
    if n[0] % 2:
        for ino in sorted(twin.lookups):
            twin.forget(ino)
    twin.under_pressure(1 << 20)
    twin.check_access_times()


def _limit_debts(world: World, n: Numbers) -> None:
    """Shrink the table of debts for a while, even to zero, while inodes are to be evicted."""
    debts = world.twin.volume.inodes.debts
    debts.count_max = (0, 1, 2, int(debts.slots * COUNT_SHARE))[n[0] % 4]
    world.twin.under_pressure(1 << 20)
    world.twin.check_access_times()


def _pay_block(world: World, n: Numbers) -> None:
    """Write what is owed to one block of the inode table."""
    twin = world.twin
    debtors = _debtors(world)
    if debtors:
        first = twin.volume.store.fmt.first_in_table_block(debtors[n[0] % len(debtors)])
        _pay_with_success(twin, lambda: twin.driver.pay_block(first))
        _require_settled(world, first)


def _pay(world: World, n: Numbers) -> None:
    """All that is owed, unless inodegc rests."""
    twin = world.twin
    _pay_with_success(twin, twin.driver.pay)
    if twin.driver.engine.cleanup.stopped:
        return
    if _debtors(world):
        raise TwinError(f"inodes {_debtors(world)} still owe after everything was paid")
    world.twin.check_access_times()


def _pay_with_success(twin: Twin, pay: Callable[[], None]) -> None:
    """A payment takes no space, and goes through as long as the disk works."""
    cleanup = twin.driver.engine.cleanup
    before = cleanup.payments_failed_total
    pay()
    if cleanup.payments_failed_total != before and not twin.below.failures:
        raise TwinError("a payment of access times fails on a disk that works")


def _require_settled(world: World, first: int) -> None:
    """The inodes of the table block owe nothing any more, and no other debt was lost."""
    twin = world.twin
    left = [ino for ino in _debtors(world) if twin.volume.store.fmt.first_in_table_block(ino) == first]
    if left:
        raise TwinError(f"inodes {left} still owe after their block was paid")
    twin.check_access_times()


_MEANWHILE: Final[tuple[Callable[[World, Numbers], None], ...]] = (
    _look_up_debtor,
    _remove_debtor,
    _set_time_of_debtor,
    _change_debtor,
    _access,
    _crowd,
)


def _pay_with_waits(world: World, n: Numbers) -> None:
    """Writing debts has to read the block first, and meanwhile the debtors change."""
    twin = world.twin
    _evict(world, n)
    fmt = twin.volume.store.fmt
    far = [ino for ino in _debtors(world) if ino >= fmt.inodes_per_chunk]
    if not far:
        _pay_block(world, n)
        return
    ino = far[n[0] % len(far)]
    action = _MEANWHILE[n[1] % len(_MEANWHILE)]
    index = _debtors(world).index(ino)
    twin.driver.meanwhile = [lambda: action(world, (index, n[2], n[3], n[1]))]
    try:
        _pay_with_success(twin, lambda: twin.driver.pay_block(fmt.first_in_table_block(ino)))
    finally:
        twin.driver.meanwhile = []
    twin.check_access_times()


def _pay_when_due(world: World, n: Numbers) -> None:
    """The payer begins with what is due, or goes on with it."""
    world.twin.driver.turn_of_payments(1 + n[0] % 6, late=n[1] % 4 == 0)


def _reclaim_when_due(world: World, n: Numbers) -> None:
    """Background reclaim begins when it is due, or goes on; one time in four the kernel has asked for memory."""
    driver = world.twin.driver
    if n[1] % 4 == 0:
        driver.engine.reclaim.under_pressure()
    driver.turn_of_reclaim(1 + n[0] % 4)


def _evict(world: World, n: Numbers) -> None:
    """Evict all clean blocks; later reads come from the disk."""
    world.twin.evict()


def _checkpoint_slice(world: World, n: Numbers) -> None:
    """Run a checkpoint until its next writes are done, and evict the blocks written home at once."""
    driver = world.twin.driver
    if driver.checkpointing is None:
        driver.begin_checkpoint(keep_log=n[2] % 2 == 1)
    for _ in range(1 + n[0] % 3):
        while driver.checkpointing is not None and not isinstance(driver.checkpointing.request, Write):
            driver.checkpointing.step()
        if driver.checkpointing is not None and n[1] % 2:
            world.twin.evict()  # the write is in flight: its blocks must stay
        for _ in range(2):
            if driver.checkpointing is not None:
                driver.checkpointing.step()
        world.twin.evict()


def _change_while_on_its_way(world: World, n: Numbers) -> None:
    """Change blocks that a checkpoint is writing, commit them, and try to evict them."""
    twin = world.twin
    driver = twin.driver
    if driver.checkpointing is None:
        driver.begin_checkpoint(keep_log=n[3] % 2 == 1)
    known = world.usable(lambda node: node.is_file)
    for index in range(min(3, len(known))):
        twin.setattr(known[(n[0] + index) % len(known)], mode=(n[1] + index) % 0o1000)
    if n[2] % 2:
        driver.commit()
    for _ in range(2):
        if driver.checkpointing is not None:
            driver.checkpointing.step()
    twin.evict()


OPERATIONS: dict[str, Callable[[World, Numbers], None]] = {
    "access": _access,
    "crowd": _crowd,
    "remove_debtor": _remove_debtor,
    "set_time_of_debtor": _set_time_of_debtor,
    "change_debtor": _change_debtor,
    "look_up_debtor": _look_up_debtor,
    "set_clock": _set_clock,
}
BACKGROUND: dict[str, Callable[[World, Numbers], None]] = {
    "hand_over": _hand_over,
    "hand_over_all": _hand_over_all,
    "limit_debts": _limit_debts,
    "pay_block": _pay_block,
    "pay": _pay,
    "pay_with_waits": _pay_with_waits,
    "pay_when_due": _pay_when_due,
    "reclaim_when_due": _reclaim_when_due,
    "evict": _evict,
    "checkpoint_slice": _checkpoint_slice,
    "change_while_on_its_way": _change_while_on_its_way,
}
