"""What a report says, for comparing."""

from __future__ import annotations

from deferfs.check import Report


def codes_of(report: Report) -> set[str]:
    return {problem.code for problem in report.problems}
