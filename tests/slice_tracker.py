"""What ui.perfetto.dev makes of a timeline in JSON: its rules for slices, which are stricter than the format's.

Times become whole nanoseconds, events are sorted by time and otherwise keep their order in the file, and each lane is a
stack: a slice that begins inside of another and ends after it is dropped, so of two that begin together the outer one
must come first. (Perfetto: `importers/json` and `importers/common/slice_tracker.cc`.)
"""

from __future__ import annotations

from typing import Any

Event = dict[str, Any]


def dropped(events: list[Event]) -> list[Event]:
    """The events that would not be shown."""
    lost = [event for event in events if not _has_all_it_needs(event)]
    stacks: dict[tuple[int, int], list[tuple[int, int]]] = {}
    timed = [event for event in events if event["ph"] in "Xi" and _has_all_it_needs(event)]
    for event in sorted(timed, key=lambda event: _nanoseconds(event["ts"])):
        start, length = _nanoseconds(event["ts"]), _nanoseconds(event.get("dur", 0))
        stack = stacks.setdefault((event["pid"], event["tid"]), [])
        while stack and (stack[-1][1] < start or (stack[-1][1] == start and (stack[-1][0] != start or length))):
            stack.pop()
        if any(start < end < start + length for _, end in stack):
            lost.append(event)
        else:
            stack.append((start, start + length))
    opened = {(event["cat"], event["id"]) for event in events if event["ph"] == "b"}
    closed = {(event["cat"], event["id"]) for event in events if event["ph"] == "e"}
    lost += [event for event in events if event["ph"] in "be" and (event["cat"], event["id"]) not in opened & closed]
    return lost


def _nanoseconds(microseconds: float) -> int:
    return int(microseconds * 1000)


def _has_all_it_needs(event: Event) -> bool:
    match event["ph"]:
        case "M":
            return event["name"] == "thread_sort_index" or bool(event["args"]["name"])
        case "X":
            return bool(event["ts"] >= 0 and event["dur"] >= 0)
        case "C":
            return bool(event["ts"] >= 0) and all(isinstance(value, int | float) for value in event["args"].values())
        case "b" | "e":
            return bool(event["ts"] >= 0 and event["cat"] and event["id"])
        case "i":
            return bool(event["ts"] >= 0 and event["s"] == "t")
    return False
