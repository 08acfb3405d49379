"""Which names have just been seen in a directory that is read in the order of its keys."""

from __future__ import annotations

from collections import deque

from deferfs.limits import DIRECTORY_WINDOW


class NearbyNames:
    """The names of the preceding entries within one window of keys: equal names have the same window."""

    __slots__ = ("_near",)

    def __init__(self) -> None:
        self._near: deque[tuple[int, bytes]] = deque(maxlen=DIRECTORY_WINDOW)

    def add(self, key: int, name: bytes) -> bool:
        """Add the next entry; False when its name is among them already."""
        near = self._near
        while near and near[0][0] + DIRECTORY_WINDOW <= key:
            near.popleft()
        if any(name == other for _, other in near):
            return False
        near.append((key, name))
        return True
