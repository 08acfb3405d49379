"""What fsck prints: problems, what was done about them, counts; text for people, JSON for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deferfs.check import Problem, Report
from deferfs.check.repair import Repaired
from deferfs.cli.output import counted, json_path, say, say_json

if TYPE_CHECKING:
    from deferfs.cli.check_run import Outcome


def say_clean(image: str, *, as_json: bool) -> None:
    """The image was unmounted cleanly, and a full check was not asked for."""
    if as_json:
        say_json({**json_path("image", image), "clean": True, "checked": False, "exit_code": 0})
    else:
        say(f"{image}: clean; not checked (-f checks everything)")


def say_problems(image: str, report: Report) -> None:
    """Every problem, one line each."""
    for problem in report.problems:
        say(f"{image}: [{problem.number}] {problem.message}")
    for code, count in report.suppressed.items():
        say(f"{image}: {code}: {count} more")


def say_foreseen(image: str, foreseen: Repaired | None) -> None:
    """What a repair would do; None when that is too much to be known beforehand."""
    if foreseen is None:
        say(f"{image}: a repair would change more than can be shown beforehand")
        return
    for action in foreseen.actions:
        say(f"{image}: would be done: {action}")
    if foreseen.actions_total > len(foreseen.actions):
        say(f"{image}: would be done: {counted(foreseen.actions_total - len(foreseen.actions), 'more action')}")
    say(f"{image}: would be done: counts, free-space bitmaps and superblocks corrected")
    if not foreseen.report.clean:
        say(f"{image}: {counted(foreseen.report.found, 'problem')} would be left")


def say_actions(image: str, outcome: Outcome) -> None:
    """What was done, and what could not be."""
    for action in outcome.actions:
        say(f"{image}: {action}")
    if outcome.actions_total > len(outcome.actions):
        say(f"{image}: {counted(outcome.actions_total - len(outcome.actions), 'more action')}")
    if outcome.left is not outcome.report and not outcome.left.clean:
        say(f"{image}: left:")
        say_problems(image, outcome.left)


def say_summary(image: str, outcome: Outcome, *, verbose: bool) -> None:
    """Whether the image is clean now, and what it holds."""
    report, counts = outcome.left, outcome.left.counts
    if outcome.recovered:
        say(f"{image}: recovered")
    if outcome.fixed:
        say(f"{image}: repaired")
    if verbose:
        kinds = (
            counted(counts.directories, "directory", "directories"),
            counted(counts.files, "file"),
            counted(counts.symlinks, "symlink"),
            counted(counts.others, "other"),
            counted(counts.orphans, "orphan"),
        )
        say(f"{image}: {', '.join(kinds)}")
        if counts.wide_directories:
            wide = counted(counts.wide_directories, "directory", "directories")
            say(f"{image}: {wide} with readdir offsets of 63 bits; -y -D gives them 31")
        say(
            f"{image}: {counted(counts.blocks_used, 'block')} used, {counts.free_blocks} free, "
            f"{counted(counts.transactions, 'transaction')} to replay"
        )
    if not report.complete:
        say(f"{image}: damage kept parts from being checked")
    found = "clean" if report.clean else f"{counted(report.found, 'problem')}"
    say(f"{image}: {found}, {counted(counts.inodes, 'inode')}, {counted(counts.free_blocks, 'free block')}")


def report_json(image: str, outcome: Outcome) -> dict[str, object]:
    """Everything, for programs: `problems` is what was found, `left` what is wrong afterwards."""
    report, left = outcome.report, outcome.left
    return {
        **json_path("image", image),
        "clean": left.clean,
        "checked": True,
        "complete": left.complete,
        "recovered": outcome.recovered,
        "repaired": outcome.fixed,
        "exit_code": outcome.code,
        "problems": [_problem(problem) for problem in report.problems],
        "suppressed": dict(report.suppressed),
        "actions": list(outcome.actions),
        "actions_total": outcome.actions_total,
        "left": [_problem(problem) for problem in left.problems],
        "counts": {name: getattr(left.counts, name) for name in left.counts.__slots__},
    }


def _problem(problem: Problem) -> dict[str, object]:
    return {
        "number": problem.number,
        "code": problem.code,
        "message": problem.message,
        "where": dict(problem.where),
    }
