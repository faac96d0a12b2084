"""Measure how far bfloat16 moves the scores of a model file, for the provider ``openvino-bf16``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onspect.runtime.dataset.good_images import find_distinct
from onspect.runtime.errors import DatasetError, ImageError
from onspect.runtime.fingerprints import fingerprint_pixels
from onspect.runtime.images.decode import read_image
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.inspection.verdict import now
from onspect.runtime.model.file import read_model_file, restamp_margin
from onspect.runtime.model.schema import Bfloat16Margin
from onspect.runtime.model.session import open_on_openvino
from onspect.runtime.progress import Progress, no_progress

FEWEST = 10
"""Fewest different pictures that a margin is measured on."""


def measure_margin(
    model: Path | str,
    images: Sequence[Path | str],
    share: float,
    *,
    progress: Progress | None = None,
) -> Bfloat16Margin:
    """Measure the margin of bfloat16 on pictures, and write it into the model file.

    Parameters
    ----------
    model
        The model file. It needs no threshold.
    images
        Pictures of the line, with good or bad parts. Labels are not used. A copy of a picture counts once.
    share
        Share of pictures whose difference shall be within the margin, between 0 and 1.
    progress
        Function of items, count and label that yields the items and shows the progress; None shows nothing.

    Returns
    -------
    Bfloat16Margin
        The margin that the file has now.

    Raises
    ------
    DatasetError
        If there are fewer different pictures than `FEWEST`, or one cannot be judged.
    ModelFileError
        If the file cannot be used.
    ChoiceError
        If this processor has no bfloat16.
    ImportError
        If OpenVINO is not installed.
    OutputError
        If the file cannot be written. It stays unchanged.
    """
    _check_count(len(images))
    file = read_model_file(model)
    fast = open_on_openvino(file, 1, bfloat16=True)
    full = Inspector(file, provider="cpu")
    differences, fingerprints = [], []
    for path in (progress or no_progress)(images, len(images), "comparing"):
        try:
            frame = read_image(path)
            batch = full.prepare(frame)[None]
        except ImageError as error:
            raise DatasetError(f"cannot measure on {str(path)!r}: {error}; leave it out") from error
        (score,) = fast.run(["score"], {"image": batch})
        differences.append(float(score[0]) - float(full.infer(batch).score[0]))
        fingerprints.append(fingerprint_pixels(frame))
    distinct = find_distinct([Path(path) for path in images], fingerprints)
    _check_count(len(distinct))
    low, high, share = choose_margin(np.array(differences)[distinct], share)
    margin = Bfloat16Margin(
        low=low,
        high=high,
        share=share,
        pictures=len(distinct),
        data=Path(images[0]).absolute().parent.name,
        time=now(),
        openvino=fast.version,
        graph_sha256=file.info.graph_sha256,
    )
    restamp_margin(file, margin)
    return margin


def _check_count(pictures: int) -> None:
    if pictures < FEWEST:
        raise DatasetError(
            f"a margin needs at least {FEWEST} different pictures, and there are {pictures}; give the good pictures, "
            "such as parts/train/good"
        )


def choose_margin(differences: NDArray[np.float64], share: float) -> tuple[float, float, float]:
    """Return the margin that contains a share of new differences, by the conformal rule at both ends.

    Of n differences the k = (n + 1) * (1 - share) / 2 lowest, and as many of the highest, are at or outside its ends.
    With too few pictures the margin goes from the lowest to the highest difference, and the share is smaller.

    Parameters
    ----------
    differences
        Score in bfloat16 minus score in float32 of each picture, float64 [n].
    share
        Share of new differences within the margin, between 0 and 1.

    Returns
    -------
    tuple[float, float, float]
        Lower end, 0 or less; upper end, 0 or more; share of new differences within, 0 to 1.

    Raises
    ------
    DatasetError
        If a difference is not finite.

    Examples
    --------
    >>> choose_margin(np.arange(-9.0, 10.0), 0.9)
    (-9.0, 9.0, 0.9)
    """
    if not np.isfinite(differences).all():
        raise DatasetError("the model has a score that is not finite on these pictures; nothing was written")
    count = len(differences)
    outside = max(1, math.floor(round((count + 1) * (1.0 - share) / 2.0, 9)))
    ordered = np.sort(differences)
    low, high = min(0.0, float(ordered[outside - 1])), max(0.0, float(ordered[-outside]))
    return low, high, min(share, 1.0 - 2.0 * outside / (count + 1))
