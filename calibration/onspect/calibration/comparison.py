"""Two models on the same images: whether one tells good from defective better, and which parts they judge otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onspect.calibration.evaluation import Evaluation, evaluate
from onspect.calibration.scores import ScoredImage
from onspect.calibration.statistics.intervals import CONFIDENCE, Interval
from onspect.calibration.statistics.paired import difference_interval, mcnemar
from onspect.runtime.atomic import make_folder
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.inspection.verdict import decide
from onspect.runtime.model.file import read_model_file
from onspect.runtime.model.schema import Threshold


@dataclass(frozen=True)
class Disagreement:
    """The images of one kind, good or defective, that exactly one of two models judges rightly."""

    images: int
    """That both judged."""

    only_first: int
    """Judged rightly by the first model alone."""

    only_second: int
    """Judged rightly by the second model alone."""

    p: float
    """How probable so uneven a split is if both are equally good: McNemar's test, exact, two-sided."""


@dataclass(frozen=True)
class Comparison:
    """Two models, measured on the images that both could score.

    auroc: of each, None where good or defective images are missing. difference: that of the first less that of the
    second; interval: its 95% interval, None where redrawn images show no spread. good, defective: None where one of the
    models has no threshold. A part for review counts as not rejected.
    """

    first: Evaluation
    second: Evaluation
    images: int
    auroc: tuple[float, float] | None
    interval: Interval | None
    good: Disagreement | None
    defective: Disagreement | None

    def __str__(self) -> str:
        return f"{self.first}\n\n" + "\n".join(self.describe())

    @property
    def difference(self) -> float | None:
        """The AUROC of the first model less that of the second."""
        return None if self.auroc is None else self.auroc[0] - self.auroc[1]

    @property
    def names(self) -> tuple[str, str]:
        """The names of both files, told apart by their digits where they are the same."""
        first, second = self.first.model, self.second.model
        if first.path.name != second.path.name:
            return first.path.name, second.path.name
        return f"{first.path.name} {first.sha256[:12]}", f"{second.path.name} {second.sha256[:12]}"

    def describe(self) -> list[str]:
        """Return the outcome in sentences."""
        first, second = self.names
        lines = [f"{first} against {second}, {self.images} images that both scored:"]
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
                    f"{kind} images: {found.only_first} judged rightly by {first} alone, {found.only_second} by "
                    f"{second} alone, of {found.images} (McNemar p = {found.p:.3g}): {shown}"
                )
        if self.good is None:
            lines.append("verdicts are not compared: one of the files has no threshold")
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as a JSON object."""
        other = self.second
        return {
            "model": {"name": other.model.info.name, "file": other.model.path.name, "sha256": other.model.sha256},
            "images": self.images,
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
    comparison = compare_evaluations(evaluate(first, data, **options), evaluate(second, data, **options))
    if report is not None:
        from onspect.calibration.report.page import write_report  # it loads a plotting library

        make_folder(Path(report))
        model = comparison.first
        write_report(Path(report), model, Inspector(model.model), title, fields=fields or {}, comparison=comparison)
    return comparison


def compare_evaluations(first: Evaluation, second: Evaluation) -> Comparison:
    """Compare two models on the images that both scored; the images are told by their paths."""
    others = {result.image.path: result for result in second.results}
    pairs = [(result, others[result.image.path]) for result in first.results if result.image.path in others]
    good = [pair for pair in pairs if not pair[0].image.defective]
    defective = [pair for pair in pairs if pair[0].image.defective]
    auroc, interval = None, None
    if good and defective:
        auroc, interval = difference_interval(_list_scores(good), _list_scores(defective))
    thresholds = first.threshold, second.threshold
    return Comparison(
        first=first,
        second=second,
        images=len(pairs),
        auroc=auroc,
        interval=interval,
        good=_count_disagreement(good, thresholds),
        defective=_count_disagreement(defective, thresholds),
    )


_Pair = tuple[ScoredImage, ScoredImage]


def _list_scores(pairs: list[_Pair]) -> NDArray[np.float64]:
    return np.array([[result.score for result in pair] for pair in pairs], np.float64).T


def _count_disagreement(
    pairs: list[_Pair], thresholds: tuple[Threshold | None, Threshold | None]
) -> Disagreement | None:
    first, second = thresholds
    if first is None or second is None:
        return None
    right = [(_is_right(one, first), _is_right(other, second)) for one, other in pairs]
    only_first, only_second = right.count((True, False)), right.count((False, True))
    return Disagreement(len(pairs), only_first, only_second, mcnemar(only_first, only_second))


def _is_right(result: ScoredImage, threshold: Threshold) -> bool:
    return (decide(result.score, threshold) == "ng") == result.image.defective
