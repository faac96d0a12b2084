"""One verdict a part, from all of its frames."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Literal

from onspect.runtime.errors import ChoiceError
from onspect.runtime.inspection.inspector import Inspection
from onspect.runtime.inspection.verdict import WORST_FIRST, Judgement
from onspect.runtime.line.frame_queue import Policy
from onspect.runtime.line.views import Join

Rule = Literal["worst", "majority"]


@dataclass(frozen=True)
class Voting:
    """How frames become one part's verdict.

    frames: how many a part has; without it, the frames that follow one another with one part id are a part, and where
    the source knows no parts each frame is one. rule: ``worst``, the worst of the frames' verdicts (ng, fault, review,
    ok in this order), or ``majority``, what more than half of the part's frames say, and without such a majority the
    worst. Frames that a part lacks count as faults. A part is never ok if a frame is missing or is a fault, or if the
    source was lost in its midst. views: how the cameras of a line see one part together (`ViewJoiner`); None, each
    camera has parts of its own.
    timeout: seconds after its last frame, or the first of its views, at which an incomplete part gets its verdict all
    the same; None waits for as long as it takes.
    """

    frames: int | None = None
    rule: Rule = "worst"
    timeout: float | None = None
    views: Join | None = None


def refuse_policies(voting: Voting, policies: Collection[Policy]) -> None:
    """Raise ChoiceError if parts of several frames meet a policy that drops some of them."""
    if (voting.frames or 1) > 1 and "latest" in policies:
        raise ChoiceError("parts of several frames need the policy 'every': 'latest' drops some of their frames")


@dataclass
class _Part:
    """A part whose frames are coming in: their verdicts, and of each verdict the frame with the highest score."""

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
    """Gathers the frames of each source's parts. A part of several frames gets a verdict of its own when it ends."""

    def __init__(self, voting: Voting, sources: int) -> None:
        self._voting = voting
        self._open: list[_Part | None] = [None] * sources
        self.next_index = 0
        """The index of the next part that ends: the number of parts given out."""

    def is_between_parts(self, source_index: int) -> bool:
        """Return whether no part of a source is under way."""
        return self._open[source_index] is None

    def begin(self, source_index: int, name: str | None, *, gap: bool) -> list[Inspection]:
        """Return the part under way if the source's next frame does not belong to it; arguments as `add`."""
        part = self._open[source_index]
        return [] if part is None or part.name == name or gap else [self._close(source_index)]

    def add(self, source_index: int, inspection: Inspection, *, gap: bool, now: float) -> list[Inspection]:
        """Take one frame's inspection and return the parts that it completes.

        gap says that an unknown number of frames is missing in its place: the part under way ends there as a fault.
        now: seconds, on any clock that does not go back.
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
        """Return the parts whose next frame is overdue and does not wait in the queue.

        waiting: the indices of the sources of which a frame waits.
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
        """Return the parts under way, for no frame comes any more."""
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
        reason = f"only {seen} of the part's {self._voting.frames} frames came" if missing else None
        index, self.next_index = self.next_index, self.next_index + 1
        return _judge_part(part, judgement, reason, index)


def _decide(counts: Counter[Judgement], rule: Rule) -> Judgement:
    if rule == "majority":
        judgement, votes = counts.most_common(1)[0]
        if 2 * votes > counts.total():
            return judgement
    return next(judgement for judgement in WORST_FIRST if counts[judgement])


def _judge_part(part: _Part, judgement: Judgement, reason: str | None, index: int) -> Inspection:
    """Return the part's inspection: that of the frame that decided, under the part's name and index."""
    example = part.examples.get(judgement)
    if example is not None:
        verdict = dataclasses.replace(example.verdict, index=index, part=part.name)
        return dataclasses.replace(example, verdict=verdict)
    shown = next(part.examples[name] for name in WORST_FIRST if name in part.examples)  # frames are missing
    verdict = dataclasses.replace(
        shown.verdict,
        index=index,
        part=part.name,
        verdict="fault",
        score=None,
        regions=(),
        reason=reason,
        code="incomplete",
    )
    return dataclasses.replace(shown, verdict=verdict, error_map=None)
