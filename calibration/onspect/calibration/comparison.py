"""Comparison of two models on the same images: AUROC with an interval, and different verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onspect.calibration.evaluation import evaluate
from onspect.calibration.figures import Evaluation
from onspect.calibration.scores import part_scores
from onspect.calibration.statistics.bootstrap import difference_interval, mcnemar
from onspect.calibration.statistics.intervals import CONFIDENCE, Interval
from onspect.runtime.atomic import check_place
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.inspection.verdict import decide
from onspect.runtime.model.file import read_model_file
from onspect.runtime.model.schema import Threshold


@dataclass(frozen=True)
class Disagreement:
    """Verdicts of two models on the good or on the defective images; with a group, on parts."""

    images: int
    """Number of images or parts that both models judged."""

    only_first: int
    """Number that only the first model judged correctly."""

    only_second: int
    """Number that only the second model judged correctly."""

    p: float
    """Two-sided p-value of the exact McNemar test, 0 to 1."""


@dataclass(frozen=True)
class Comparison:
    """Two models, measured on the images that both could score.

    For verdicts, a part for review counts as not rejected.
    """

    first: Evaluation
    """Evaluation of the first model on all its images."""
    second: Evaluation
    """Evaluation of the second model on all its images."""
    images: int
    """Number of images that both models scored."""
    parts: int | None
    """Number of parts that the images show, each counted once by its worst image; None without a group."""
    auroc: tuple[float, float] | None
    """AUROC of the first and of the second model, 0 to 1; None if good or defective images are missing."""
    interval: Interval | None
    """95% interval of `difference`, -1 to 1; None if resampled images show no spread."""
    good: Disagreement | None
    """Verdicts on good parts; None if one of the models has no threshold."""
    defective: Disagreement | None
    """Verdicts on defective parts; None if one of the models has no threshold."""

    def __str__(self) -> str:
        return f"{self.first}\n\n" + "\n".join(self.describe())

    @property
    def difference(self) -> float | None:
        """AUROC of the first model minus that of the second, -1 to 1; None if it is undefined."""
        return None if self.auroc is None else self.auroc[0] - self.auroc[1]

    @property
    def names(self) -> tuple[str, str]:
        """Names of both files; with the first digits of their fingerprints if the names are equal."""
        first, second = self.first.model, self.second.model
        if first.path.name != second.path.name:
            return first.path.name, second.path.name
        return f"{first.path.name} {first.sha256[:12]}", f"{second.path.name} {second.sha256[:12]}"

    def describe(self) -> list[str]:
        """Return the result in sentences.

        Returns
        -------
        list[str]
            One line for each fact: AUROC first, then the verdicts.
        """
        first, second = self.names
        shown = "" if self.parts is None else f" of {self.parts} parts"
        noun = "images" if self.parts is None else "parts"
        lines = [f"{first} against {second}, {self.images} images{shown} that both scored:"]
        if self.auroc is None or self.difference is None:
            lines.append("AUROC is undefined: it needs good and defective images")
        else:
            words = f"AUROC {self.auroc[0]:.4f} and {self.auroc[1]:.4f}, difference {self.difference:+.4f}"
            if self.interval is None:
                lines.append(f"{words}: resampled images show no spread, so there is no interval")
            else:
                low, high = self.interval
                better = (
                    "not shown which is better" if low <= 0.0 <= high else f"{first if low > 0 else second} is better"
                )
                lines.append(f"{words}, {low:+.4f} to {high:+.4f} ({CONFIDENCE:.0%} paired bootstrap): {better}")
        for kind, found in (("good", self.good), ("defective", self.defective)):
            if found is not None and found.images:
                shown = "a difference is shown" if found.p < 1.0 - CONFIDENCE else "no difference is shown"
                lines.append(
                    f"{kind} {noun}: {found.only_first} judged correctly by {first} alone, {found.only_second} by "
                    f"{second} alone, of {found.images} (McNemar p = {found.p:.3g}): {shown}"
                )
        if self.good is None:
            lines.append("verdicts are not compared: one of the files has no threshold")
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as a JSON object.

        Returns
        -------
        dict[str, Any]
            Names and fingerprint of the second model, all figures, and the sentences of `describe`.
        """
        other = self.second
        return {
            "model": {"name": other.model.info.name, "file": other.model.path.name, "sha256": other.model.sha256},
            "images": self.images,
            "parts": self.parts,
            "auroc": None if self.auroc is None else list(self.auroc),
            "difference": self.difference,
            "interval": self.interval,
            "good": None if self.good is None else asdict(self.good),
            "defective": None if self.defective is None else asdict(self.defective),
            "words": self.describe(),
        }


def compare_models(
    first: str | Path,
    second: str | Path,
    data: str | Path,
    *,
    report: str | Path | None = None,
    title: str | None = None,
    fields: Mapping[str, str] | None = None,
    **options: Any,
) -> Comparison:
    """Measure two model files on the same labelled images, with confidence intervals for their differences.

    Parameters
    ----------
    first, second
        The model files.
    data
        A dataset folder, as `evaluate` takes it.
    report
        A folder for the report of the first model, with a section on the second; None to write nothing.
    title, fields
        As in `evaluate`.
    options
        The other arguments of `evaluate`.

    Returns
    -------
    Comparison
        Both evaluations and the difference of each metric.

    Raises
    ------
    ChoiceError, ModelFileError, DatasetError, OutputError
        As `evaluate` does.
    """
    read_model_file(Path(second))  # a wrong name is refused before any work
    if report is not None:
        check_place(Path(report), folder=True)
    comparison = compare_evaluations(evaluate(first, data, **options), evaluate(second, data, **options))
    if report is not None:
        from onspect.calibration.report.page import write_report  # loads a plotting library

        model = comparison.first
        write_report(Path(report), model, Inspector(model.model), title, fields=fields or {}, comparison=comparison)
    return comparison


def compare_evaluations(first: Evaluation, second: Evaluation) -> Comparison:
    """Compare two evaluations on the images that both models scored. Images are matched by their paths.

    Parameters
    ----------
    first
        Evaluation of the first model. Its group applies to both.
    second
        Evaluation of the second model.

    Returns
    -------
    Comparison
        Both evaluations and the difference of each metric.
    """
    others = {result.image.path: result for result in second.results}
    pairs = [(result, others[result.image.path]) for result in first.results if result.image.path in others]
    both = [part_scores([pair[place] for pair in pairs], first.group) for place in (0, 1)]  # parts in the same order
    good, defective = (np.stack(scores) for scores in zip(*both, strict=True))
    auroc, interval = None, None
    if good.size and defective.size:
        auroc, interval = difference_interval(good, defective)
    thresholds = first.threshold, second.threshold
    return Comparison(
        first=first,
        second=second,
        images=len(pairs),
        parts=None if first.group is None else good.shape[1] + defective.shape[1],
        auroc=auroc,
        interval=interval,
        good=_count_disagreement(good, thresholds, defective=False),
        defective=_count_disagreement(defective, thresholds, defective=True),
    )


def _count_disagreement(
    scores: NDArray[np.float64], thresholds: tuple[Threshold | None, Threshold | None], *, defective: bool
) -> Disagreement | None:
    """Return how often one model alone is correct, from scores [2, n] of one kind; None if a threshold is missing."""
    first, second = thresholds
    if first is None or second is None:
        return None
    right = [
        tuple((decide(float(score), threshold) == "ng") == defective for score in row)
        for row, threshold in zip(scores, (first, second), strict=True)
    ]
    pairs = list(zip(*right, strict=True))
    only_first, only_second = pairs.count((True, False)), pairs.count((False, True))
    return Disagreement(len(pairs), only_first, only_second, mcnemar(only_first, only_second))
