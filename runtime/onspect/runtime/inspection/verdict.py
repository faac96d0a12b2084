"""The verdict on one part, and the only comparison of a score with a threshold."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, overload

from onspect.runtime.inspection.regions import Region
from onspect.runtime.judgement import Judgement
from onspect.runtime.model.schema import Threshold
from onspect.runtime.records import quick_init

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from onspect.runtime.images.decode import Frame

_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False)


@dataclass(frozen=True)
class FrameContext:
    """Where a frame comes from. Its verdict repeats these facts."""

    source: str = "frame"
    """Path of the image file, or name of the camera."""

    index: int = 0
    """Position in the run, from 0."""

    part: str | None = None
    """The part's id, None if the source does not know it."""

    captured: float = field(default_factory=time.perf_counter)
    """Seconds on `time.perf_counter` at capture, or when the file was opened. The latency counts from here."""


@quick_init
@dataclass(frozen=True)
class Verdict:
    """The verdict on one part. `to_json` gives one line of a JSONL file."""

    source: str
    """Path of the image file, or name of the camera."""

    index: int
    """Position in the run, from 0."""

    time: str
    """ISO 8601, UTC."""

    verdict: Judgement
    """``ok``, ``ng``, ``review`` or ``fault``."""

    score: float | None
    """The score, None for a fault."""

    threshold: float
    """The threshold that the score was compared with."""

    regions: tuple[Region, ...]
    """Regions of high error, in pixels of the frame."""

    latency_ms: float
    """Milliseconds from the frame (or the opening of the file) to the verdict."""

    model: str
    """Name of the model and the first 12 digits of its file's SHA-256."""

    reason: str | None = None
    """Reason of a fault, otherwise None."""

    part: str | None = None
    """The part's id, None if the source does not know it."""

    review_threshold: float | None = None
    """The score where the review band below `threshold` begins, None without one."""

    pose_x: float | None = None
    """Where alignment found the middle of the reference, in pixels of the frame from the left. None without an
    alignment, and if the part was not found."""

    pose_y: float | None = None
    """The same in pixels from the top."""

    pose_angle: float | None = None
    """Rotation of the part in degrees, counter-clockwise. None as for `pose_x`."""

    code: str | None = None
    """Kind of a fault, one of `errors.FAULT_CODES`; otherwise None."""

    def to_dict(self) -> dict[str, Any]:
        """Return the verdict as the JSON object of lines and files.

        Returns
        -------
        dict[str, Any]
            Every field under its name; regions as objects.
        """
        content = dict(vars(self))  # asdict takes as long as some networks
        content["regions"] = tuple(dict(vars(region)) for region in self.regions)
        return content

    def plot(self, frame: Frame | None = None, *, white_level: int | None = None) -> NDArray[np.uint8]:
        """Return the frame with the verdict and a box around each region.

        `Inspection.plot` draws outlines too.

        Parameters
        ----------
        frame
            [height, width] or [height, width, 3], uint8 or uint16. None reads the file `source`.
        white_level
            Value of a uint16 frame that becomes white. None for the end of the smallest usual bit depth that fits it.

        Returns
        -------
        NDArray[np.uint8]
            uint8 [height, width, 3], BGR.

        Raises
        ------
        ImageError
            If the frame cannot be drawn, or the file cannot be read.
        """
        from onspect.runtime.images.decode import read_image
        from onspect.runtime.inspection.visualization import draw_boxes  # it imports this module

        return draw_boxes(self, read_image(self.source) if frame is None else frame, white_level)

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
        """Return the verdict as one line of JSON.

        Returns
        -------
        str
            The line without its end.
        """
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
    """Return the verdict for a score.

    Parameters
    ----------
    score
        The score of the part.
    threshold
        The threshold of the model.

    Returns
    -------
    Judgement
        ``ng`` if score >= threshold.score. Below that ``review`` if there is a band and score >=
        threshold.review, otherwise ``ok``. ``fault`` if the score is not finite.
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
    """Return whether a score rejects a part.

    Parameters
    ----------
    score
        One score, or scores [n].
    threshold
        The threshold of the model.

    Returns
    -------
    bool or array
        True if score >= threshold.score; for scores [n], bool [n].
    """
    return score >= threshold.score


def now() -> str:
    """Return the time in UTC.

    Returns
    -------
    str
        ISO 8601 with milliseconds, such as ``2026-03-01T12:00:00.000Z``.
    """
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
