"""The result of teaching, and good pictures with outlying scores."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onspect.runtime.binomial import rate_bound
from onspect.runtime.conformal import CROSS_CONFORMAL, conformal, format_rate
from onspect.runtime.dataset.good_images import GoodImages
from onspect.runtime.dataset.groups import worst_of_groups
from onspect.runtime.errors import DatasetError
from onspect.runtime.model.file import ModelFile
from onspect.runtime.model.schema import ModelInfo
from onspect.runtime.outliers import find_lone_scores
from onspect.runtime.teaching.fit import FittedMemory
from onspect.runtime.teaching.pictures import take
from onspect.runtime.teaching.threshold import RATE, counts_parts
from onspect.runtime.text import count_of


@dataclass(frozen=True)
class Lone:
    """A good picture whose score is an outlier."""

    path: Path
    """The picture."""

    score: float
    """Its score by a memory without it."""

    threshold: float
    """The threshold without the outliers."""


@dataclass(frozen=True)
class Taught:
    """The result of `teach` and `add`."""

    path: Path
    """The model file."""

    info: ModelInfo
    """Its metadata."""

    pictures: int
    """Number of pictures that were taught, or removed, now."""

    rate: float
    """Share of new good parts that the threshold promises to reject at most, on average, between 0 and 1."""

    lone: tuple[Lone, ...] = field(default=())
    """Good pictures whose score is an outlier, highest first."""

    trimmed: tuple[Lone, ...] = field(default=())
    """Outliers that were left out."""

    refused_threshold: float | None = None
    """The threshold to which an addition would have raised the file's; None if it would not have raised it."""

    @property
    def promises(self) -> bool:
        """Whether teaching chose the threshold, and not a calibration on other images."""
        return self.info.calibration is not None and CROSS_CONFORMAL in self.info.calibration.policy

    def describe_support(self) -> str:
        """Describe the false rejects that the pictures support.

        Returns
        -------
        str
            One or more sentences.
        """
        calibration = self.info.calibration
        if calibration is None or not self.promises:
            return "The threshold is that of an earlier calibration; run 'onspect calibrate' again to choose a new one."
        count = len(calibration.good_scores)
        most = math.ceil(round(1e4 * self.rate, 6)) / 1e4  # rounded up, so that "at most" is true
        noun, shown = "pictures", ""
        if self.info.memory is not None and counts_parts(self.info):
            noun, shown = "parts", f" in {self.info.memory.pictures} pictures"
        sentence = (
            f"With {count} good {noun}{shown} the threshold rejects at most {format_rate(most)} of new good parts, "
            "on average."
        )
        if self.rate > RATE:
            needed = math.ceil(round(1.0 / RATE, 9)) - 1
            sentence += f" {needed} {noun} are needed to promise {format_rate(RATE)}."
        bound = rate_bound(0, count)
        return f'{sentence} The {noun} alone prove only "below {format_rate(round(bound, 3))}" with 95% confidence.'


def find_lone_additions(
    file: ModelFile,
    found: GoodImages,
    scores: NDArray[np.float32],
    groups: NDArray[np.intp],
    rate: float | None,
) -> tuple[Lone, ...]:
    """Find new pictures whose score is an outlier among all scores.

    Parameters
    ----------
    file
        The model file before the addition.
    found
        The new pictures.
    scores
        Score of each new picture, float32 [n].
    groups
        Number of the part of each new picture, int [n].
    rate
        Share of new good parts that may be rejected; None as in `teach`.

    Returns
    -------
    tuple[Lone, ...]
        The outliers, highest first, with the threshold without them.
    """
    old, threshold = file.info.calibration, file.info.threshold
    earlier = np.array(() if old is None else old.good_scores, np.float64)
    before = np.delete(earlier, find_lone_scores(earlier))  # earlier outliers are not a reference for others
    every = np.concatenate([before, scores.astype(np.float64)])
    among_all = {place - len(before) for place in find_lone_scores(every) if place >= len(before)}
    lone = sorted(among_all.union(find_lone_scores(scores.tolist())), key=lambda place: -float(scores[place]))
    if not lone:
        return ()
    others = np.concatenate([earlier, _without(scores, groups, lone)])
    if old is None or threshold is None or CROSS_CONFORMAL not in old.policy:
        without = 0.0 if threshold is None else threshold.score  # the threshold of an earlier calibration is kept
    else:
        least = 1.0 / (len(others) + 1)
        without = conformal(others, max(RATE if rate is None else rate, least))
    return tuple(Lone(found.paths[place], float(scores[place]), without) for place in lone)


def find_lone(found: GoodImages, fitted: FittedMemory, rate: float, groups: NDArray[np.intp]) -> tuple[Lone, ...]:
    """Find pictures whose score is an outlier.

    Parameters
    ----------
    found
        The pictures.
    fitted
        The memory with their scores.
    rate
        Share of new good parts that may be rejected, between 0 and 1.
    groups
        Number of the part of each picture, int [n].

    Returns
    -------
    tuple[Lone, ...]
        The outliers, highest first, with the threshold without them.
    """
    places = find_lone_scores(fitted.scores.tolist())
    if not places:
        return ()
    others = _without(fitted.scores, groups, places)
    without = conformal(others, max(rate, 1.0 / (len(others) + 1)))
    return tuple(Lone(found.paths[place], float(fitted.scores[place]), without) for place in places)


def _without(scores: NDArray[np.float32], groups: NDArray[np.intp], places: Sequence[int]) -> NDArray[np.float64]:
    """Return the highest score of each part, without the parts whose pictures are all among the places."""
    if len(places) == len(scores):
        return np.empty(0)
    parts = np.unique(np.delete(groups, places), return_inverse=True)[1]
    return worst_of_groups(np.delete(scores, places), parts)


def refuse_lone(lone: Sequence[Lone], *, strict: bool) -> None:
    """Refuse outliers if that was asked for.

    Parameters
    ----------
    lone
        The outliers.
    strict
        Whether to refuse them.

    Raises
    ------
    DatasetError
        If there is an outlier and `strict` is true.
    """
    if strict and lone:
        names = ", ".join(repr(str(item.path)) for item in lone)
        raise DatasetError(
            f"the score of {names} is an outlier among the good pictures, like the score of a defective part; remove "
            f"it, leave it out with --trim, or teach without --strict; nothing was written"
        )


def leave_out(found: GoodImages, lone: Sequence[Lone]) -> GoodImages:
    """Return the images without outliers.

    Parameters
    ----------
    found
        The images.
    lone
        The outliers.

    Returns
    -------
    GoodImages
        The other images.
    """
    left_out = {item.path for item in lone}
    return take(found, [place for place, path in enumerate(found.paths) if path not in left_out])


def note_trimmed(info: ModelInfo, trimmed: Sequence[Lone]) -> ModelInfo:
    """Add the number of pictures that were left out to the policy.

    Parameters
    ----------
    info
        Metadata of the model file.
    trimmed
        The pictures that were left out.

    Returns
    -------
    ModelInfo
        The metadata with the new policy.
    """
    if not trimmed or info.calibration is None or CROSS_CONFORMAL not in info.calibration.policy:
        return info
    words = f" ({count_of(len(trimmed), 'good image')} left out by --trim)"
    policy = info.calibration.policy + words
    return dataclasses.replace(info, calibration=dataclasses.replace(info.calibration, policy=policy))
