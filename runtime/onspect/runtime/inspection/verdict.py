"""The verdict on one part, and the one place where a score is held against a threshold."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, overload

from onspect.runtime.inspection.regions import Region
from onspect.runtime.model.schema import Threshold

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from onspect.runtime.images.decode import Frame

Judgement = Literal["ok", "ng", "review", "fault"]


@dataclass(frozen=True)
class JudgementFacts:
    """What one verdict means for the part."""

    meaning: str
    """In words, for people."""

    severity: int
    """Of two frames of one part, the one with the higher severity decides."""

    rejected: bool
    """Whether the part must leave the line."""


JUDGEMENTS: dict[Judgement, JudgementFacts] = {
    "ok": JudgementFacts("the part passes", severity=0, rejected=False),
    "ng": JudgementFacts("the part is rejected", severity=3, rejected=True),
    "review": JudgementFacts("a person decides", severity=1, rejected=False),
    "fault": JudgementFacts("the part could not be judged", severity=2, rejected=True),
}
"""Every verdict, in the order in which they are listed and counted."""

WORST_FIRST: tuple[Judgement, ...] = tuple(sorted(JUDGEMENTS, key=lambda name: -JUDGEMENTS[name].severity))
"""Every verdict, the one with the highest severity first."""

_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False)


@dataclass(frozen=True)
class FrameContext:
    """Where a frame comes from. It goes in with the frame, and its verdict repeats it."""

    source: str = "frame"
    """Path of the image file, or name of the camera."""

    index: int = 0
    """Position in the run, from 0."""

    part: str | None = None
    """The part's id, None if the source does not know it."""

    captured: float = field(default_factory=time.perf_counter)
    """Seconds on `time.perf_counter` when the frame was captured, or its file opened. The latency counts from here."""


@dataclass(frozen=True)
class Verdict:
    """What was decided about one part; `to_json` is one line of a JSONL file.

    source: path or name of the frame's source. index: position in the run, from 0. time: ISO 8601, UTC.
    score: None for a fault. threshold: the cut it was held against. latency_ms: from frame (or file) to verdict.
    model: the model's name and the first 12 digits of its file's SHA-256. reason: for a fault, why.
    part: the part's id, where the source knows it.
    review_threshold: where the review band below `threshold` begins, None without one.
    pose_x, pose_y, pose_angle: with an alignment, where the middle of the reference was found in the frame, in pixels,
    and by how many degrees it is turned, counter-clockwise; None without one and for a part that was not found.
    code: for a fault, its kind: one of `errors.FAULT_CODES`.
    """

    source: str
    index: int
    time: str
    verdict: Judgement
    score: float | None
    threshold: float
    regions: tuple[Region, ...]
    latency_ms: float
    model: str
    reason: str | None = None
    part: str | None = None
    review_threshold: float | None = None
    pose_x: float | None = None
    pose_y: float | None = None
    pose_angle: float | None = None
    code: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of interface lines and files."""
        content = dict(vars(self))  # not asdict, which takes as long as some networks
        content["regions"] = tuple(dict(vars(region)) for region in self.regions)
        return content

    def plot(self, frame: Frame | None = None) -> NDArray[np.uint8]:
        """Return the frame with the verdict and a box around each region, uint8 [height, width, 3], BGR.

        frame: HxW or HxWx3, uint8 or uint16; None to read the file that `source` names. `Inspection.plot` draws
        outlines too. Raises ImageError where there is no such frame or file.
        """
        from onspect.runtime.images.decode import read_image
        from onspect.runtime.inspection.visualization import draw_boxes  # it imports this module

        return draw_boxes(self, read_image(self.source) if frame is None else frame)

    def _repr_html_(self) -> str:
        """Return the verdict as a small table for a notebook."""
        import html

        facts: dict[str, Any] = {"verdict": self.verdict, "score": self.score, "ng from": self.threshold}
        facts |= {"review from": self.review_threshold, "regions": len(self.regions), "part": self.part}
        facts |= {"reason": self.reason, "source": self.source, "model": self.model}
        known = {name: fact for name, fact in facts.items() if fact is not None}
        shown = {name: f"{fact:.6g}" if isinstance(fact, float) else str(fact) for name, fact in known.items()}
        rows = (f"<tr><th>{name}</th><td>{html.escape(text)}</td></tr>" for name, text in shown.items())
        return f"<table>{''.join(rows)}</table>"

    def to_json(self) -> str:
        """Return the verdict as one line of JSON, without the line's end."""
        return _JSON.encode(vars(self) | {"regions": tuple(map(vars, self.regions))})


def parse_verdict(line: str | bytes) -> Verdict:
    """Return the verdict of a line that `Verdict.to_json` wrote. Keys that this version does not know are ignored.

    Parameters
    ----------
    line
        One JSON object.

    Returns
    -------
    Verdict
        The verdict.

    Raises
    ------
    ValueError
        If the line is not a verdict.
    """
    content = json.loads(line)
    if not isinstance(content, dict):
        raise ValueError(f"a verdict is a JSON object, not {content!r}")  # noqa: TRY004 - one error for a bad line
    known = {field.name for field in fields(Verdict)}
    facts = {key: value for key, value in content.items() if key in known}
    try:
        facts["regions"] = tuple(Region(**region) for region in facts["regions"])
        return Verdict(**facts)
    except (KeyError, TypeError) as error:
        raise ValueError(f"the line is not a verdict: {error}") from error


def decide(score: float, threshold: Threshold) -> Judgement:
    """Return the verdict that a score brings.

    ``ng`` where score >= threshold.score; below that ``review`` where there is a band and score >= threshold.review,
    else ``ok``; ``fault`` where the score is not finite.
    """
    if not math.isfinite(score):
        return "fault"
    if reaches(score, threshold):
        return "ng"
    return "review" if threshold.review is not None and score >= threshold.review else "ok"


@overload
def reaches(score: float, threshold: Threshold) -> bool: ...
@overload
def reaches(score: NDArray[Any], threshold: Threshold) -> NDArray[np.bool_]: ...
def reaches(score: float | NDArray[Any], threshold: Threshold) -> bool | NDArray[np.bool_]:
    """Return whether a score rejects a part; of scores [n], bool [n]."""
    return score >= threshold.score


def now() -> str:
    """Return the time in UTC as ISO 8601 with milliseconds, such as ``2026-03-01T12:00:00.000Z``."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
