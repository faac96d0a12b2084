"""The check of scores: the exported file, run by onnxruntime on real images, must score as the trained model does."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import nn

from onspect.runtime.errors import ExportError

TOLERANCE = 1e-4
"""Largest relative difference between a score of the file and of the trained model that lets the file be kept."""

_NOTHING = 1e-9  # smaller errors are invisible in 8 bits and below float32's precision


@dataclass(frozen=True)
class Parity:
    """Result of the comparison of scores."""

    difference: float
    """Largest relative difference of a score, 0 or more."""
    images: int
    """Number of compared images."""
    exported: NDArray[np.float32] = field(repr=False, compare=False)
    """Scores of the file, float32 [n]."""
    trained: NDArray[np.float32] = field(repr=False, compare=False)
    """Scores of the trained model, float32 [n]."""


def check_parity(data: bytes, graph: nn.Module, images: NDArray[np.uint8]) -> Parity:
    """Compare the scores of a model file with those of the trained model, in batches of 4 and of 1.

    Parameters
    ----------
    data
        The model file as bytes.
    graph
        The trained model.
    images
        uint8 [n, height, width, channels].

    Returns
    -------
    Parity
        The scores and their largest difference.

    Raises
    ------
    ExportError
        If the file cannot run, or a score differs by more than `TOLERANCE` of its value.
    """
    try:
        session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
        exported = _scores_by_session(session, images, 4)
        single = _scores_by_session(session, images[:8], 1)
    except Exception as error:  # the errors of onnxruntime have no common base class
        raise ExportError(f"onnxruntime cannot run the exported file: {error}") from error
    with torch.no_grad():
        parts = [graph(torch.from_numpy(images[start : start + 16]))[0] for start in range(0, len(images), 16)]
    trained = torch.cat(parts).numpy()
    differences = np.abs(exported - trained) / np.maximum(np.abs(trained), _NOTHING)
    worst = float(np.max(differences, initial=0.0))
    alone = float(np.max(np.abs(single - exported[:8]) / np.maximum(np.abs(exported[:8]), _NOTHING), initial=0.0))
    if not max(worst, alone) <= TOLERANCE:
        index = int(np.argmax(differences))
        raise ExportError(
            f"the scores of the exported file differ from those of the trained model by up to {max(worst, alone):.2e} "
            f"of their value, more than {TOLERANCE:g} ({exported[index]:.8g} against {trained[index]:.8g}): the file "
            "was not kept; report this with the versions of torch, onnx and onnxruntime"
        )
    return Parity(max(worst, alone), len(images), exported, trained)


def _scores_by_session(
    session: onnxruntime.InferenceSession, images: NDArray[np.uint8], batch: int
) -> NDArray[np.float32]:
    starts = range(0, len(images), batch)
    scores = [session.run(["score"], {"image": images[start : start + batch]})[0] for start in starts]
    return np.concatenate(scores)
