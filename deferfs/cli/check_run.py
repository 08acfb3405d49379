"""Running a check: get the image, look at everything, recover or repair as far as asked to, say what was found."""

from __future__ import annotations

import enum
import time
from dataclasses import dataclass, field
from typing import Final

from deferfs.check import Report, check_image
from deferfs.check.context import Progress
from deferfs.check.repair import Repaired, add_spares, foresee_repair, mark, recover_log, repair_image
from deferfs.check.report import Findings
from deferfs.check.superblocks import read_superblock
from deferfs.cli.check_report import (
    report_json,
    say_actions,
    say_clean,
    say_foreseen,
    say_problems,
    say_summary,
)
from deferfs.cli.output import confirm, say_json, tell
from deferfs.device import FileDevice
from deferfs.errors import ImageError
from deferfs.mount.daemon.image import open_image
from deferfs.mount.daemon.recover import recover_image
from deferfs.ondisk.superblock import STATE_ERRORS
from deferfs.store.past import past_device

EXIT_CLEAN: Final = 0
EXIT_FIXED: Final = 1
EXIT_PROBLEMS_LEFT: Final = 4
_SAFE: Final = frozenset((101, 104))
"""What `-p` repairs by recovering: a lost superblock copy, and a mark of errors where none are found."""


class Mode(enum.Enum):
    """What the check may change: nothing (`-n`); what needs no decision (`-p`); everything (`-y`); everything, after a
    question."""

    LOOK = "n"
    PREEN = "p"
    REPAIR = "y"
    ASK = ""


@dataclass(slots=True)
class Outcome:
    """The outcome of a check. `report` is what was found, `left` what is so now. `recovered`: the log was replayed, or
    deletions were finished.
    """

    report: Report
    left: Report
    recovered: bool = False
    fixed: bool = False
    actions: tuple[str, ...] = field(default=())
    actions_total: int = 0

    @property
    def code(self) -> int:
        """The exit code: a sum."""
        sound = self.left.clean and self.left.complete
        return (EXIT_FIXED if self.fixed else 0) + (0 if sound else EXIT_PROBLEMS_LEFT)


def check_past(image: str, tid: int, *, verbose: bool, as_json: bool, progress: Progress | None = None) -> int:
    """Check the image as it was after transaction `tid` of its log; the exit code. ImageError, ImageInUseError."""
    device = open_image(image, writable=False, notice=tell)
    try:
        report = check_image(past_device(device, tid), progress=progress)
    finally:
        device.close()
    outcome = Outcome(report, report)
    if as_json:
        say_json({**report_json(image, outcome), "at": tid})
    else:
        say_problems(image, report)
        say_summary(image, outcome, verbose=verbose)
    return outcome.code


def run_check(
    image: str,
    mode: Mode,
    *,
    force: bool,
    narrow: bool,
    verbose: bool,
    as_json: bool,
    progress: Progress | None = None,
    spare: int | None = None,
) -> int:
    """Check the image at `image`; the exit code. With `narrow`, which goes with Mode.REPAIR, older directories get
    readdir offsets of 31 bits. With `spare`, the spare superblock at that byte is taken. ImageError or ImageInUseError
    when it cannot be checked.
    """
    device = open_image(image, writable=mode is not Mode.LOOK, notice=tell)
    try:
        superblock = read_superblock(device, Findings(), spare)
        trusted = superblock.clean and not superblock.state & STATE_ERRORS
        if mode is Mode.PREEN and trusted and not force:
            say_clean(image, as_json=as_json)
            return EXIT_CLEAN
        report = check_image(device, progress=progress, spare=spare)
        outcome = Outcome(report, report)
        sound = report.clean and report.complete
        narrows = narrow and (report.counts.wide_directories > 0 or not sound)
        if not as_json:
            say_problems(image, report)
        if narrows:
            _repair(device, outcome, progress, spare, narrow=True)
        elif mode is Mode.LOOK or (sound and superblock.clean):
            if not sound and verbose and not as_json:
                _foresee(image, device, report, progress, spare)
        elif sound or (mode is Mode.PREEN and _is_safe(report)):
            device = _recover(image, device, outcome, progress)
        elif _shall_repair(image, device, mode, report, progress, spare):
            _repair(device, outcome, progress, spare)
        elif mode is Mode.ASK:
            tell(f"{image}: nothing was changed")
        else:
            tell(f"{image}: nothing was changed; fsck -y repairs it")
        if mode is Mode.REPAIR and sound:
            _add_spares(device, outcome)
    finally:
        device.close()
    if as_json:
        say_json(report_json(image, outcome))
    else:
        say_actions(image, outcome)
        say_summary(image, outcome, verbose=verbose)
    return outcome.code


def _is_safe(report: Report) -> bool:
    return report.complete and not report.suppressed and all(p.number in _SAFE for p in report.problems)


def _shall_repair(
    image: str, device: FileDevice, mode: Mode, report: Report, progress: Progress | None, spare: int | None
) -> bool:
    if mode is Mode.PREEN:
        return _needs_no_decision(device, report, progress, spare)
    return mode is Mode.REPAIR or _confirmed(image, device, report, progress, spare)


def _needs_no_decision(device: FileDevice, report: Report, progress: Progress | None, spare: int | None) -> bool:
    """Whether a repair would lose nothing and guess nothing: wrong bits, counts, marks of free space."""
    try:
        foreseen = foresee_repair(device, report.superblock, time.time_ns(), progress=progress, spare=spare)
    except ImageError:
        return False
    return foreseen is not None and foreseen.exact and foreseen.report.clean and foreseen.report.complete


def _confirmed(image: str, device: FileDevice, report: Report, progress: Progress | None, spare: int | None) -> bool:
    """One question for the whole repair, asked when its outcome is known: its parts depend on each other."""
    if not _foresee(image, device, report, progress, spare):
        return False
    problems = f"{report.found} problem{'s' * (report.found != 1)}"
    return confirm(f"{image}: repair {problems}?")


def _foresee(image: str, device: FileDevice, report: Report, progress: Progress | None, spare: int | None) -> bool:
    """Say what a repair would do; whether it could do anything."""
    try:
        foreseen = foresee_repair(device, report.superblock, time.time_ns(), progress=progress, spare=spare)
    except ImageError as error:
        tell(f"{error}; copy what can be read to a new image")
        return False
    say_foreseen(image, foreseen)
    return True


def _recover(image: str, device: FileDevice, outcome: Outcome, progress: Progress | None) -> FileDevice:
    """Replay the log, finish deletions, write both superblocks. Returns the device to continue with."""
    outcome.recovered = _recovers(outcome.report)
    outcome.fixed = not outcome.report.clean
    recover_log(device, time.time_ns())
    if outcome.report.counts.orphans:
        recover_image(device)  # a mount would do the same; closes it
        device = open_image(image, writable=True, notice=tell)
    mark(device, time.time_ns(), clean=True)
    if outcome.report.counts.orphans or outcome.fixed:
        outcome.left = check_image(device, progress=progress)
    return device


def _recovers(report: Report) -> bool:
    """Whether there is a log to replay, or are deletions to finish: an image can be left open without either."""
    return not report.superblock.clean and bool(report.counts.transactions or report.counts.orphans)


def _add_spares(device: FileDevice, outcome: Outcome) -> None:
    """An image of an older program has no spare superblocks: it gets them, which is no repair."""
    added = add_spares(device, read_superblock(device, Findings()), time.time_ns())
    if added is not None:
        outcome.actions, outcome.actions_total = (added,), 1


def _repair(
    device: FileDevice,
    outcome: Outcome,
    progress: Progress | None,
    spare: int | None,
    *,
    narrow: bool = False,
) -> None:
    try:
        repaired: Repaired = repair_image(device, time.time_ns(), progress=progress, narrow=narrow, spare=spare)
    except ImageError as error:
        tell(f"{error}; copy what can be read to a new image")
        return
    outcome.recovered = bool(outcome.report.counts.transactions) and not outcome.report.superblock.clean
    outcome.fixed = True
    outcome.left = repaired.report
    outcome.actions, outcome.actions_total = repaired.actions, repaired.actions_total
