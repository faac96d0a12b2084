"""Drift in a file of verdicts that a line has written."""

from __future__ import annotations

import itertools
import json
import math
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onspect.runtime.drift.detector import RUN_LENGTH, START_CHANCE, Alarm, make_drift
from onspect.runtime.errors import DatasetError
from onspect.runtime.explain import explaining
from onspect.runtime.model.file import ModelFile, read_model_file
from onspect.runtime.text import format_facts


@dataclass(frozen=True)
class LoggedPart:
    """The facts of a verdict's line that drift needs."""

    source: str
    """Path or name of the source."""

    time: str
    """ISO 8601, UTC."""

    verdict: str
    """``ok``, ``ng``, ``review`` or ``fault``."""

    score: float | None
    """The score, None for a fault."""

    model: str
    """Name and checksum of the model."""


@dataclass(frozen=True)
class Stretch:
    """Consecutive parts of a line."""

    parts: int
    """Number of parts."""

    median: float | None
    """Median of their scores, None if no part was judged."""

    rejected: float | None
    """Share of the judged parts that are ``ng``, 0 to 1; None if no part was judged."""


@dataclass(frozen=True)
class Comparison:
    """The verdicts of a line compared with the calibration of its model file."""

    parts: int
    """Number of verdicts, with faults."""

    compared: int
    """Number of parts whose scores were compared. These scores are below `cut`."""

    cut: float
    """Scores below this value are compared."""

    reference: int
    """Number of the calibration's good scores that were compared."""

    unread: int
    """Number of lines that are not a verdict."""

    other_files: int
    """Number of parts that a file of the same name and another checksum judged, such as before its threshold was
    moved."""

    false_alarm_chance: float
    """Upper bound of the probability of an alarm on an unchanged line of this length, 0 to 1."""

    alarm: Alarm | None
    """The first alarm, None without one."""

    began: LoggedPart | None
    """The part of its estimated beginning, None without an alarm."""

    noticed: LoggedPart | None
    """The part that raised it, None without an alarm."""

    before: Stretch
    """The parts before the beginning, or all parts without an alarm."""

    since: Stretch | None
    """The parts from the beginning on, None without an alarm."""

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as a JSON object.

        Returns
        -------
        dict[str, Any]
            Every field under its name.
        """
        return asdict(self)


def compare_log(path: Path | str, model: ModelFile | Path | str) -> Comparison:
    """Look for drift in a JSONL file of verdicts, in the order of its lines.

    Parameters
    ----------
    path
        The JSONL file.
    model
        The model file that gave the verdicts, or its path.

    Returns
    -------
    Comparison
        Scores of the file compared with those of the calibration, and the first alarm.

    Raises
    ------
    DatasetError
        If the file cannot be read, has no verdict, or has a verdict by a model of another name.
    UncalibratedError
        If the model file has no good scores.
    ModelFileError
        If the model file cannot be used.
    """
    path, model = Path(path), model if isinstance(model, ModelFile) else read_model_file(model)
    drift = make_drift(model.info)
    label = f"{model.info.name}@{model.sha256[:12]}"
    scores, rejected, models = array("d"), bytearray(), Counter[str]()
    unread = 0
    for part in _read_parts(path):
        if part is None:
            unread += 1
            continue
        drift.update(part.score)
        scores.append(math.nan if part.score is None else part.score)
        rejected.append(part.verdict == "ng")
        models[part.model] += 1
    if not scores:
        raise DatasetError(f"there is no verdict in {str(path)!r} ({unread} other lines); give a file that 'run' wrote")
    strangers = [name for name in models if name.rpartition("@")[0] != model.info.name]
    if strangers:
        raise DatasetError(
            f"{str(path)!r} has verdicts by {strangers[0]!r}, and the model file is {label!r}: scores of two models "
            f"cannot be compared; give the model file that the line ran"
        )
    alarm = drift.alarm
    turn = len(scores) if alarm is None else alarm.began
    return Comparison(
        parts=drift.parts,
        compared=drift.compared,
        cut=drift.cut,
        reference=drift.reference,
        unread=unread,
        other_files=len(scores) - models[label],
        false_alarm_chance=min(1.0, drift.parts / RUN_LENGTH + START_CHANCE),
        alarm=alarm,
        began=None if alarm is None else _find_part(path, alarm.began),
        noticed=None if alarm is None else _find_part(path, alarm.noticed),
        before=_describe_stretch(scores[:turn], rejected[:turn]),
        since=None if alarm is None else _describe_stretch(scores[turn:], rejected[turn:]),
    )


def describe_comparison(comparison: Comparison, calibration: str) -> str:
    """Return a comparison as text, one fact a line.

    Parameters
    ----------
    comparison
        The comparison.
    calibration
        Name of the calibration's data.

    Returns
    -------
    str
        The lines, each with the name of its fact.
    """
    alarm = comparison.alarm
    parts = comparison.parts if alarm is None else alarm.noticed + 1
    compared = (
        f"{comparison.compared} of {parts} parts{'' if alarm is None else ', up to the alarm'}: the parts with a "
        f"score below {comparison.cut:.6g}, with {comparison.reference} good scores of {calibration!r}"
    )
    promise = (
        f"on an unchanged line of {comparison.parts} parts with a probability of at most "
        f"{comparison.false_alarm_chance:.3g}"
    )
    facts = [("compared", compared), ("false alarm", promise)]
    if alarm is None or comparison.since is None:
        facts = [("drift", "none seen"), *facts, ("scores", _describe_scores(comparison.before))]
    else:
        facts = [
            ("drift", f"the scores {alarm.direction}"),
            ("began", f"about {_name_part(alarm.began, comparison.began)}"),
            ("noticed", _name_part(alarm.noticed, comparison.noticed)),
            ("before", _describe_scores(comparison.before)),
            ("since", _describe_scores(comparison.since)),
            *facts,
            ("danger", alarm.danger),
        ]
    return "\n".join(format_facts(facts, 13))


def _read_parts(path: Path) -> Iterator[LoggedPart | None]:
    """Yield the part of each line, None for a line without a verdict, such as one that a power cut left."""
    with explaining(DatasetError, f"cannot read {str(path)!r}", "give a file of verdicts"), path.open("rb") as file:
        for line in file:
            if line.strip():
                yield _parse_line(line)


def _parse_line(line: bytes) -> LoggedPart | None:
    try:
        content = json.loads(line)
        score = content["score"]
        part = LoggedPart(
            source=str(content["source"]),
            time=str(content["time"]),
            verdict=str(content["verdict"]),
            score=None if score is None else float(score),
            model=str(content["model"]),
        )
    except (ValueError, KeyError, TypeError):
        return None
    return part if part.score is None or math.isfinite(part.score) else None


def _find_part(path: Path, number: int) -> LoggedPart:
    parts = (part for part in _read_parts(path) if part is not None)
    return next(itertools.islice(parts, number, None))


def _describe_stretch(scores: array[float], rejected: bytearray) -> Stretch:
    judged = np.array(scores)[~np.isnan(scores)]
    if not len(judged):
        return Stretch(len(scores), None, None)
    return Stretch(len(scores), float(np.median(judged)), sum(rejected) / len(judged))


def _describe_scores(stretch: Stretch) -> str:
    if stretch.median is None or stretch.rejected is None:
        return f"{stretch.parts} parts, none of them judged"
    return f"{stretch.parts} parts, median score {stretch.median:.6g}, {stretch.rejected:.1%} rejected"


def _name_part(number: int, part: LoggedPart | None) -> str:
    return f"part {number}" + ("" if part is None else f", {part.source!r}, {part.time}")
