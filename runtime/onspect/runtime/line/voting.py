"""One verdict for each part, from all of its frames."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Literal

from onspect.runtime.errors import ChoiceError
from onspect.runtime.inspection.inspector import Inspection
from onspect.runtime.judgement import WORST_FIRST, Judgement
from onspect.runtime.line.frame_queue import Policy
from onspect.runtime.line.views import Join, as_fault

Rule = Literal["worst", "majority"]


@dataclass(frozen=True)
class Voting:
    """How frames become the verdict of one part.

    A missing frame counts as a fault. A part is never ok if a frame is missing or a fault, or if the source was lost
    between its frames.
    """

    frames: int | None = None
    """Number of frames of a part, 1 or more. None: consecutive frames with one part id are a part, and a frame without
    an id is a part of its own.
    """
    rule: Rule = "worst"
    """``worst``: the worst verdict of the frames, in the order ng, fault, review, ok. ``majority``: the verdict of more
    than half of the frames, else the worst.
    """
    timeout: float | None = None
    """Seconds after its last frame, or after its first view, at which an incomplete part gets its verdict; None for no
    limit.
    """
    views: Join | None = None
    """How the cameras of a line see one part together (`ViewJoiner`); None if each camera has its own parts."""


def refuse_policies(voting: Voting, policies: Collection[Policy]) -> None:
    """Refuse a policy that drops frames of a part with several frames.

    Parameters
    ----------
    voting
        How frames become parts.
    policies
        The policies of the sources.

    Raises
    ------
    ChoiceError
        If parts have several frames and a policy is ``latest``.
    """
    if (voting.frames or 1) > 1 and "latest" in policies:
        raise ChoiceError("parts of several frames need the policy 'every': 'latest' drops some of their frames")


@dataclass
class _Part:
    """A part whose frames are coming: counts of verdicts, and for each verdict the frame with the highest score."""

    name: str | None
    last_seen: float
    broken: bool = False
    counts: Counter[Judgement] = field(default_factory=Counter)
    examples: dict[Judgement, Inspection] = field(default_factory=dict)

    def add(self, inspection: Inspection, *, gap: bool, now: float) -> None:
        self.last_seen = now
        self.broken |= gap
        judgement = inspection.verdict.verdict
        self.counts[judgement] += 1
        example = self.examples.get(judgement)
        if example is None or (inspection.verdict.score or 0.0) > (example.verdict.score or 0.0):
            self.examples[judgement] = inspection


class Voter:
    """Collect the frames of each source's parts. A part of several frames gets its verdict when it ends.

    Parameters
    ----------
    voting
        How frames become parts.
    sources
        Number of sources, 1 or more.
    """

    def __init__(self, voting: Voting, sources: int) -> None:
        self._voting = voting
        self._open: list[_Part | None] = [None] * sources
        self.next_index = 0
        """Index of the next part that ends, which is the number of finished parts."""

    def is_between_parts(self, source_index: int) -> bool:
        """Return whether a source has no unfinished part.

        Parameters
        ----------
        source_index
            Index of the source, 0 or more.

        Returns
        -------
        bool
            True if it has no unfinished part.
        """
        return self._open[source_index] is None

    def begin(self, source_index: int, name: str | None, *, gap: bool) -> list[Inspection]:
        """End the unfinished part of a source if its next frame does not belong to it.

        Parameters
        ----------
        source_index
            Index of the source, 0 or more.
        name
            Part id of the next frame; None if it has none.
        gap
            Whether an unknown number of frames is missing in place of the next frame.

        Returns
        -------
        list[Inspection]
            The part that ends, or an empty list.
        """
        part = self._open[source_index]
        return [] if part is None or part.name == name or gap else [self._close(source_index)]

    def add(self, source_index: int, inspection: Inspection, *, gap: bool, now: float) -> list[Inspection]:
        """Add the inspection of one frame.

        Parameters
        ----------
        source_index
            Index of the source, 0 or more.
        inspection
            The inspection.
        gap
            Whether an unknown number of frames is missing in its place: the unfinished part ends as a fault.
        now
            Time in seconds on a clock that never goes back.

        Returns
        -------
        list[Inspection]
            The parts that the frame completes.
        """
        name = inspection.verdict.part
        done = self.begin(source_index, name, gap=gap)
        part = self._open[source_index]
        if part is None and name is None and self._voting.frames in (None, 1):
            self.next_index += 1
            return [*done, inspection]
        part = part or _Part(name, now)
        part.add(inspection, gap=gap, now=now)
        self._open[source_index] = part
        if gap or part.counts.total() == self._voting.frames:
            done.append(self._close(source_index))
        return done

    def expire(self, now: float, waiting: Collection[int]) -> list[Inspection]:
        """Return the parts whose next frame is overdue and is not in the queue.

        Parameters
        ----------
        now
            Time in seconds on a clock that never goes back.
        waiting
            Indices of the sources that have a frame in the queue.

        Returns
        -------
        list[Inspection]
            The parts. A part with missing frames is never ok.
        """
        timeout = self._voting.timeout
        if timeout is None:
            return []
        late = [
            source_index
            for source_index, part in enumerate(self._open)
            if part is not None and now - part.last_seen > timeout and source_index not in waiting
        ]
        return [self._close(source_index) for source_index in late]

    def flush(self) -> list[Inspection]:
        """Return the unfinished parts, when no more frames come.

        Returns
        -------
        list[Inspection]
            The parts. A part with missing frames is never ok.
        """
        return [self._close(source_index) for source_index, part in enumerate(self._open) if part is not None]

    def _close(self, source_index: int) -> Inspection:
        part = self._open[source_index]
        assert part is not None
        self._open[source_index] = None
        seen = part.counts.total()
        missing = max(0, (self._voting.frames or 0) - seen)
        judgement = _decide(part.counts + Counter[Judgement]({"fault": missing}), self._voting.rule)
        if judgement == "ok" and (part.broken or missing or part.counts["fault"]):
            judgement = "fault"
        reason = f"only {seen} of the part's {self._voting.frames} frames came"
        index, self.next_index = self.next_index, self.next_index + 1
        return _judge_part(part, judgement, reason, index)


def _decide(counts: Counter[Judgement], rule: Rule) -> Judgement:
    if rule == "majority":
        judgement, votes = counts.most_common(1)[0]
        if 2 * votes > counts.total():
            return judgement
    return next(judgement for judgement in WORST_FIRST if counts[judgement])


def _judge_part(part: _Part, judgement: Judgement, reason: str, index: int) -> Inspection:
    """Return the inspection of the frame that decided, with the name and index of the part."""
    example = part.examples.get(judgement)
    if example is None:  # frames are missing
        shown = next(part.examples[name] for name in WORST_FIRST if name in part.examples)
        example = as_fault(shown, reason, "incomplete")
    verdict = dataclasses.replace(example.verdict, index=index, part=part.name)
    return dataclasses.replace(example, verdict=verdict)
