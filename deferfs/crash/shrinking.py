"""Shrinking a finding: fewer actions, smaller numbers, a simpler crash, as long as it still fails.

Operations and schedule are one list of actions, so they shrink together. Each attempt explores again, as with other
actions another crash may fail. Then the crash itself is simplified.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import msgspec

from deferfs.crash.exploration import Action, Finding, crash_of, explore_actions, judge_finding
from deferfs.crash.explorer import CrashPoint
from deferfs.crash.states import Subset
from deferfs.crash.world import Shape


def shrink(finding: Finding, go_on: Callable[[], bool] = lambda: True) -> Finding:
    """The smallest failure found while `go_on()`."""
    finding = _fewer_actions(finding, go_on)
    finding = _smaller_numbers(finding, go_on)
    return _simpler_crash(finding, go_on)


def _try(finding: Finding, actions: list[Action]) -> Finding | None:
    shape = msgspec.convert(finding.shape, Shape)
    crashes = finding.place is not None
    return explore_actions(shape, finding.seed, actions, finding.torn, finding.workload, crashes=crashes)[1]


def _fewer_actions(finding: Finding, go_on: Callable[[], bool]) -> Finding:
    """Remove ever shorter parts of the run."""
    length = max(1, len(finding.actions) // 2)
    while True:
        at, shorter = 0, False
        while at < len(finding.actions) and go_on():
            found = _try(finding, finding.actions[:at] + finding.actions[at + length :])
            if found is None:
                at += length
            else:
                finding, shorter = found, True
        if not go_on() or (length == 1 and not shorter):
            return finding
        length = max(1, min(length // 2, len(finding.actions) // 2)) if length > 1 else 1


def _smaller_numbers(finding: Finding, go_on: Callable[[], bool]) -> Finding:
    """Replace numbers by zeros."""
    for at in range(len(finding.actions)):
        for position in range(4):
            if at >= len(finding.actions) or not go_on():
                return finding
            word, numbers = finding.actions[at]
            for smaller in (0, numbers[position] % 64):
                if smaller < numbers[position]:
                    changed = list(numbers)
                    changed[position] = smaller
                    a, b, c, d = changed
                    actions = [*finding.actions[:at], (word, (a, b, c, d)), *finding.actions[at + 1 :]]
                    found = _try(finding, actions)
                    if found is not None:
                        finding = found
                        break
    return finding


def _simpler_crash(finding: Finding, go_on: Callable[[], bool]) -> Finding:
    """Keep fewer writes, tear nothing, no crash in the recovery, if it still fails."""
    simpler = True
    while simpler:
        simpler = False
        crash = crash_of(finding)
        if crash is None:
            return finding
        for candidate in _simpler(crash):
            if not go_on():
                return finding
            tried = msgspec.structs.replace(finding, place=msgspec.to_builtins(candidate))
            reason = judge_finding(tried)[1]
            if reason is not None:
                finding, simpler = msgspec.structs.replace(tried, reason=reason), True
                break
    return finding


def _simpler(crash: CrashPoint) -> Iterator[CrashPoint]:
    if crash.within is not None:
        yield replace(crash, within=None)
        for inner in _simpler(crash.within):
            yield replace(crash, within=inner)
    choice = crash.choice
    if choice.torn >= 0:
        yield replace(crash, choice=Subset(choice.kept & ~(1 << choice.torn)))
        yield replace(crash, choice=Subset(choice.kept | 1 << choice.torn))
        if choice.trashed:
            yield replace(crash, choice=replace(choice, trashed=0))
        for bit in _bits(choice.sectors):
            yield replace(crash, choice=replace(choice, sectors=choice.sectors & ~bit))
    if choice.shred:
        yield replace(crash, choice=replace(choice, shred=0))
    for bit in _bits(choice.kept):
        yield replace(crash, choice=replace(choice, kept=choice.kept & ~bit))


def _bits(mask: int) -> Iterator[int]:
    while mask > 0:
        yield mask & -mask
        mask &= mask - 1
