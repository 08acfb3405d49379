"""Outcomes: crash states with equal recoveries are examined once.

The result of a crash state depends on what its recovery writes, which the real recovery code determines for every
state, and on the pages that the examination reads. So an *outcome* is stored with both, and holds for every state with
the same recovery in which these pages are equal, whatever its other pages contain: old log blocks, free blocks, file
contents. Contents are compared for each state, but only where they differ from what was compared before.

Only the ids of transactions and the sequence numbers of superblocks are excluded from the comparison. A sample of the
states is also judged by the plain oracle, which uses none of this.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from typing import Final

from deferfs.crash.examination import Examination
from deferfs.crash.history import History, Piece
from deferfs.crash.layout import Chunk, chunks_with_content, wrong_bytes
from deferfs.crash.oracle import prefix
from deferfs.crash.pages import Pages, Patch
from deferfs.crash.recoveries import Recovery

_OUTCOMES_MAX: Final = 24
"""Outcomes kept in memory: those of the last few commits."""


@dataclass(slots=True)
class Outcome:
    """An examination, and the pages after recovery on which it depends: `decided`. `clean` if there was no recovery,
    because the superblock said that the log is empty.
    """

    found: Examination
    decided: Patch
    clean: bool
    state: int = -1
    """The state of the history with which the contents were compared."""
    chunks: set[Chunk] = field(default_factory=set)
    """All chunks with content in that state, or on the disk."""
    stale: set[int] = field(default_factory=set)
    """Data pages that changed on the disk since they were compared."""


@dataclass(slots=True)
class _Bound:
    """An outcome that holds for a recovery in the current epoch if the pages in `open` have the given contents."""

    outcome: Outcome
    open: list[tuple[int, bytes]]


class Outcomes:
    """The outcomes of one recorded run. `base` are the durable pages of the current epoch, `fixed` the pages that the
    recoveries determine: superblocks and log.
    """

    def __init__(self, base: Pages, history: History, fixed: frozenset[int]) -> None:
        self.base = base
        self.history = history
        self.fixed = fixed
        self._recent: list[Outcome] = []
        self._bound: dict[int, list[_Bound]] = {}
        self._unflushed: set[int] = set()
        self._versions: dict[tuple[int, int, int, int], list[Piece]] = {}

    def begin_epoch(self, unflushed: set[int], changed: Mapping[int, bytes]) -> None:
        """A new epoch: `changed` was applied to the base; states differ from it only in the pages `unflushed`, and
        where recoveries write.
        """
        self._unflushed = unflushed
        self._bound.clear()
        self._versions.clear()
        for outcome in self._recent:
            outcome.stale.update(changed.keys() & outcome.found.layout.by_page.keys())

    def widen(self, pages: Set[int]) -> None:
        """States of the epoch may differ from the base in these pages, too."""
        if not pages <= self._unflushed:
            self._unflushed |= pages
            self._bound.clear()

    def find(self, recovery: Recovery, patch: Patch) -> Outcome | None:
        """The known outcome of a state with this recovery, or None."""
        bound = self._bound.get(recovery.key)
        if bound is None:
            bound = self._bound[recovery.key] = [
                found for outcome in self._recent if (found := self._bind(outcome, recovery)) is not None
            ]
        base = self.base
        for candidate in bound:
            for page, wanted in candidate.open:
                content = patch.get(page)
                if (base[page] if content is None else content) != wanted:
                    break
            else:
                return candidate.outcome
        return None

    def _bind(self, outcome: Outcome, recovery: Recovery) -> _Bound | None:
        """None when a page that no state of the epoch changes differs from the outcome's."""
        if outcome.clean is not recovery.clean:
            return None
        base, images, unflushed = self.base, recovery.images, self._unflushed
        open_pages: list[tuple[int, bytes]] = []
        for page, wanted in outcome.decided.items():
            content = images.get(page)
            if content is None:
                if page in unflushed:
                    open_pages.append((page, wanted))
                    continue
                content = base[page]
            if content is not wanted and content != wanted:
                return None
        return _Bound(outcome, open_pages)

    def add(self, recovery: Recovery, found: Examination) -> Outcome:
        """Store the result of an examination."""
        # pages written by recovery were read as it left them, so they are not among the reads
        decided = {page: content for page, content in found.reads.items() if page not in self.fixed}
        decided.update(recovery.images)
        outcome = Outcome(found, decided, recovery.clean)
        self._recent.insert(0, outcome)
        del self._recent[_OUTCOMES_MAX:]
        bound = self._bind(outcome, recovery)
        assert bound is not None, "an outcome holds for the state it was found with"
        self._bound.setdefault(recovery.key, []).insert(0, bound)
        return outcome

    def require_allowed(
        self,
        outcome: Outcome,
        patch: Patch,
        read: Callable[[int, int], bytes],
        earliest: int,
        latest: int,
        trashed: frozenset[int],
    ) -> str | None:
        """What is wrong with the contents of files after crashes from `earliest` to `latest`; None when nothing is.
        CrashError when the tree is not allowed. `patch` is the difference of the recovered image from the base.
        """
        history, layout = self.history, outcome.found.layout

        def versions(ino: int, number: int) -> list[Piece]:
            key = (ino, number, state, earliest)
            found = self._versions.get(key)
            if found is None:
                found = self._versions[key] = history.pieces(*key)
            return found

        state = outcome.state
        tree = outcome.found.tree
        if not (history.floor(latest) <= state <= history.ceiling(earliest)):
            state = prefix(history, tree, earliest, latest)
        if state != outcome.state:
            outcome.state = state
            outcome.chunks = chunks_with_content(layout, history.states[state])
            outcome.stale = set(layout.by_page)
            # chunks in no page never change with a page: holes and inline data
            mapped = layout.mapped
            unmapped = [chunk for chunk in outcome.chunks if chunk not in mapped]
            wrong = wrong_bytes(layout, sorted(unmapped), read, history.states[state], versions)
            if wrong is not None:
                return wrong
        by_page = layout.by_page
        pages = [page for page in patch if page in by_page]
        pages += [page for page in outcome.stale if page not in patch]
        if not pages:
            return None
        chunks = sorted({chunk for page in pages for chunk in by_page[page]})
        wrong = wrong_bytes(layout, chunks, read, history.states[state], versions, trashed)
        if wrong is None:
            outcome.stale &= patch.keys()
        return wrong
