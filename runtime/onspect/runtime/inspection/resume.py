"""Resume an interrupted run of ``onspect score``: find the images that its file of verdicts already has."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from onspect.runtime.atomic import describe_os_error
from onspect.runtime.errors import OutputError
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.inspection.verdict import Verdict, parse_verdict


def count_judged(path: Path, sources: Sequence[str], inspector: Inspector) -> Counter[str]:
    """Count the verdicts in the JSONL file of an interrupted run.

    The verdicts must be those of the first sources, in their order. A last line that was cut off is not counted; a
    sink that appends removes it. A missing file has no verdicts.

    Parameters
    ----------
    path
        The file.
    sources
        Names of all images of the run, in order.
    inspector
        The model of the run.

    Returns
    -------
    Counter[str]
        Number of verdicts of each kind.

    Raises
    ------
    OutputError
        If the file cannot be read, or has verdicts of other images, another model or another threshold.
    """
    counts: Counter[str] = Counter()
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file):
                verdict = _parse(path, number, line)
                if verdict is not None:
                    _check(path, number, verdict, sources, inspector)
                    counts[verdict.verdict] += 1
    except FileNotFoundError:
        pass
    except OSError as error:
        raise OutputError(f"cannot read {str(path)!r}: {describe_os_error(error)}; run without --resume") from error
    return counts


def _parse(path: Path, number: int, line: bytes) -> Verdict | None:
    try:
        return parse_verdict(line)
    except ValueError as error:
        if not line.endswith(b"\n"):
            return None
        raise OutputError(
            f"line {number + 1} of {str(path)!r} is not a verdict ({error}); run without --resume, into another file"
        ) from error


def _check(path: Path, number: int, verdict: Verdict, sources: Sequence[str], inspector: Inspector) -> None:
    cut = inspector.threshold
    judged = (verdict.model, verdict.threshold, verdict.review_threshold)
    if judged != (inspector.label, cut.score, cut.review):
        raise OutputError(
            f"{str(path)!r} has verdicts of {verdict.model} at threshold {verdict.threshold:g}, and this run has "
            f"{inspector.label} at {cut.score:g}; run without --resume, into another file"
        )
    source = sources[number] if number < len(sources) else None
    if source is None or as_written(source) != verdict.source:
        is_now = "there are no more images" if source is None else f"image {number + 1} is {source!r}"
        raise OutputError(
            f"line {number + 1} of {str(path)!r} is of {verdict.source!r}, and {is_now}: these are not the images of "
            "the run that was interrupted; run without --resume, into another file"
        )


def as_written(source: str) -> str:
    """Return a source as it is read back from the line of a verdict, also if its name is not valid UTF-8.

    Parameters
    ----------
    source
        The name of the source.

    Returns
    -------
    str
        The name after encoding and decoding.
    """
    text = json.dumps(source, ensure_ascii=False).encode(errors="backslashreplace")
    return str(json.loads(text))
