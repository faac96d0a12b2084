"""Find out whether a model does not separate good from defective parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from onspect.calibration.metrics.image import Confusion

NOT_SHOWN = "it is not shown"
"""Beginning of a sentence that says that the images are too few to show whether the model is useful."""

_MOST_REJECTED = 0.5
_SEEMS_USEFUL = 0.75
_FEWEST = 3  # with fewer good or defective images, the number of mistakes proves nothing


def find_blindness(
    auroc: float | None, intervals: Mapping[str, Sequence[float | None]], confusion: Confusion
) -> list[str]:
    """Return the reasons why a model is not useful on these images.

    Parameters
    ----------
    auroc
        AUROC of the images, 0 to 1; None if good or defective images are missing.
    intervals
        95% intervals by metric. Only ``auroc`` is read.
    confusion
        Counts at the file's threshold.

    Returns
    -------
    list[str]
        One sentence for each reason; empty if there is no reason.
    """
    found = []
    noun = confusion.noun
    low = intervals["auroc"][0] if "auroc" in intervals else None
    if auroc is not None and low is not None and low <= 0.5:
        high = intervals["auroc"][1] or 1.0
        span = f"the AUROC is {auroc:.2f}, its 95% interval, {low:.2f} to {high:.2f}"
        figures = f"{span}, includes 0.5, which is chance"
        if high < 0.5:
            found.append(f"the model scores good {noun}s higher than defective ones: {span}; are the labels swapped?")
        elif auroc < _SEEMS_USEFUL:
            found.append(f"the model does not tell good from defective {noun}s: {figures}")
        else:
            found.append(f"{NOT_SHOWN} that the model tells good from defective {noun}s: {figures}; they are too few")
    if confusion.good >= _FEWEST and confusion.false_ng > _MOST_REJECTED * confusion.good:
        found.append(f"the threshold rejects {confusion.false_ng} of {confusion.good} good {noun}s")
    if confusion.defective >= _FEWEST and not confusion.true_ng + confusion.review_defective:
        found.append(f"the threshold catches none of {confusion.defective} defective {noun}s")
    return found
