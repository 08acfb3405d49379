"""Random runs of actions, and recorded runs."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Final

from deferfs.crash import blocking, shortage
from deferfs.crash.actions import BACKGROUND, LARGE, NUMBER_MAX, OPERATIONS, act
from deferfs.crash.endings import Numbers
from deferfs.crash.world import SMALL_JOURNAL_BLOCKS, Shape, World
from deferfs.limits import JOURNAL_BLOCKS_MIN

SELDOM = frozenset(
    {
        "forget_all",
        "policy",
        "remount",
        "rmdir",
        "set_times",
        "mknod",
        "shred",
        "collect_all",
        "checkpoint",
        "removexattr",
        "crowd",
        "set_clock",
        "pay",
    }
)
"""Words drawn rarely, because they undo much or test little."""
CHECKPOINTS = frozenset({"checkpoint", "checkpoint_step", "remount", "checkpoint_slice", "change_while_on_its_way"})
OFTEN = frozenset(
    {"create", "write", "link", "rename", "commit_step", "checkpoint_step", "inactivation_step", "remove"}
    | {"access", "hand_over", "pay_block", "go_on"}
)
"""Words drawn often; all others are between the two."""
_SWARM_WEIGHTS: Final = (0, 0, 1, 3, 9)
_NEVER_LEFT_OUT: Final = frozenset({"create", "write", "commit_step"})
"""Without files and commits there is nothing to explore."""


def weighted(words: Iterable[str]) -> list[str]:
    """Each word repeated by its weight, in a deterministic order."""
    return [word for word in sorted(words) for _ in range(1 if word in SELDOM else 5 if word in OFTEN else 3)]


def swarm(dice: random.Random, words: Iterable[str]) -> list[str]:
    """As `weighted`, with weights drawn for one run: some words not at all, some often. A run that omits words goes
    deeper into the others ("Swarm testing", Groce et al., ISSTA 2012).
    """
    drawn = {word: dice.choice(_SWARM_WEIGHTS) for word in sorted(words)}
    return [word for word in drawn for _ in range(max(drawn[word], word in _NEVER_LEFT_OUT))]


def throw(dice: random.Random) -> Numbers:
    """Four random numbers, the arguments of an action."""
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
    words: Collection[str] = (),
    large: bool = False,
    short: bool = False,
    blocking_too: bool = False,
    weigh: Callable[[Iterable[str]], list[str]] = weighted,
) -> Iterator[tuple[str, Numbers]]:
    """A long run: mostly operations, partly background actions, and crashes.

    Without `checkpoints` only a full log causes them; with little background, transactions grow large, too. With
    `words`, only these are drawn. `large` adds more work for inodegc, `short` makes memory short, `blocking_too` adds
    requests that wait. `weigh` decides how often each word is drawn.
    """
    known, behind = set(OPERATIONS), set(BACKGROUND)
    if large:
        known |= LARGE.keys()
    if short:
        known |= shortage.OPERATIONS.keys()
        behind |= shortage.BACKGROUND.keys()
    if blocking_too:
        known |= blocking.OPERATIONS.keys()
        behind |= blocking.BACKGROUND.keys()
    operations = weigh(word for word in known if not words or word in words)
    background = weigh(word for word in behind if checkpoints or word not in CHECKPOINTS)
    if not behind.isdisjoint(words):
        background = weighted(word for word in behind if word in words)
    if not operations:
        background_percent = 100
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
    """A small filesystem, so that the log wraps and freed blocks are reused soon; half of the time very small."""
    return Shape(
        free_blocks=dice.choice((150, 1200)),
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
        act(world, word, numbers)
    for word, numbers in pace(count, cuts_percent=cuts_percent, crashes_percent=crashes_percent):
        act(world, word, numbers)
    world.twin.verify()
    return world


def replay(actions: Sequence[tuple[str, Sequence[int]]], shape: Shape | None = None, seed: int = 0) -> World:
    """Perform the actions in a new world, and compare volume and model at the end."""
    world = World(shape or Shape(), seed)
    for word, numbers in actions:
        act(world, word, numbers)
    world.twin.verify()
    return world
