"""A threshold that fits the labelled parts, and the rates that these parts prove."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onspect.runtime.binomial import CONFIDENCE, rate_bound
from onspect.runtime.conformal import candidates, count_reaching
from onspect.runtime.errors import ChoiceError
from onspect.runtime.fingerprints import fingerprint_bytes
from onspect.runtime.images.decode import decode_image
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.labels.store import LabelStore
from onspect.runtime.model.file import read_model_file


@dataclass(frozen=True)
class Proposal:
    """A threshold that fits the labels. Labelled parts are not a random sample: most are rejects."""

    score: float
    """The proposed threshold."""

    lowest: float
    """The lowest threshold with the same errors."""

    highest: float
    """The highest threshold with the same errors."""

    good: int
    """Number of good parts that were not taught."""

    rejected: int
    """Number of them that would be ng."""

    rejected_at_most: float
    """Upper bound of the rate of ng among such good parts, one-sided, 0 to 1."""

    bad: int
    """Number of bad parts."""

    missed: int
    """Number of them that would not be ng."""

    missed_at_most: float
    """Upper bound of the rate of misses among such bad parts, one-sided, 0 to 1."""

    confidence: float = CONFIDENCE
    """Confidence of both bounds, 0 to 1."""


def propose(store: LabelStore, inspector: Inspector) -> Proposal:
    """Judge every labelled part with a model, and return the threshold with the fewest errors.

    Misses weigh most: among the thresholds with the fewest misses, those with the fewest rejected good parts are
    chosen, and of these the middle. Good parts that were taught are left out, because their score is now 0.

    Parameters
    ----------
    store
        The labels.
    inspector
        The model.

    Returns
    -------
    Proposal
        The threshold.

    Raises
    ------
    ChoiceError
        If there is no good or no bad part.
    """
    taught = read_model_file(inspector.path).training_images
    scores: dict[str | None, list[float]] = {"good": [], "bad": []}
    for picture in store.list_pictures(labelled=True):
        png = store.read(picture.id)
        if picture.label == "good" and fingerprint_bytes(png) in taught:
            continue
        score = inspector.inspect(decode_image(png)).score
        if score is not None:
            scores[picture.label].append(score)
    good, bad = np.array(scores["good"]), np.array(scores["bad"])
    if not len(good) or not len(bad):
        raise ChoiceError(
            f"there are {len(good)} good parts that were not taught and {len(bad)} bad ones with a label; "
            "label at least one of each"
        )
    cuts = np.unique(np.concatenate([candidates(np.concatenate([good, bad])), bad]))
    cuts = cuts[cuts > 0]
    missed = len(bad) - count_reaching(bad, cuts)
    rejected = count_reaching(good, cuts)
    errors = list(zip(missed.tolist(), rejected.tolist(), strict=True))
    fewest = min(errors)
    best = cuts[[error == fewest for error in errors]]
    above = good[good < best[0]]
    lowest = float(np.nextafter(above.max(), np.inf)) if len(above) else float(best[0])
    below = bad[bad >= best[-1]]
    highest = float(below.min()) if len(below) else float(best[-1])
    return Proposal(
        score=(lowest + max(lowest, highest)) / 2.0,
        lowest=lowest,
        highest=max(lowest, highest),
        good=len(good),
        rejected=fewest[1],
        rejected_at_most=rate_bound(fewest[1], len(good)),
        bad=len(bad),
        missed=fewest[0],
        missed_at_most=rate_bound(fewest[0], len(bad)),
    )
