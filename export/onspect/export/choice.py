"""Which score a run is exported with where nobody says: decided on synthetic defects, never on labelled images."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from onspect.export.graph import InspectionGraph, design_score, fit_normal_error
from onspect.runtime.model_file import Score
from onspect.training.checkpoint import TrainedModel
from onspect.training.head_loop import draw_twins

_IMAGES = 64
_FEWEST = 8  # held-out images on which the two can be told apart; with fewer, training images join them
_TWINS = 3  # defective twins drawn of each
_CANDIDATES = ("head", "relative")


def choose_score(model: TrainedModel) -> Score:
    """Return the score for a run: the mean squared error for preset ``paper``, the relative peak without a head.

    With a head, the one of ``head`` and ``relative`` that better tells synthetic defects, drawn on held-out good
    images, from the images themselves. A head is at its best on textures, where parts differ from each other; the
    autoencoder's error is on parts that look and lie alike, where a head may not know what belongs to the part.
    """
    network = model.record.config.network
    if model.head is None:
        return design_score("mse" if model.record.config.preset == "paper" else "relative", network)
    areas = measure_scores(model)
    best = max(_CANDIDATES, key=lambda name: areas[name])
    found = ", ".join(f"{name} {areas[name]:.3f}" for name in _CANDIDATES)
    return design_score(best, network, why=f"AUROC on synthetic defects drawn on held-out images: {found}")


def measure_scores(model: TrainedModel) -> dict[str, float]:
    """Return the AUROC of each score that a run with a head can have, on synthetic defects."""
    held_out = len(model.record.data.held_out)
    count = min(_IMAGES, held_out if held_out >= _FEWEST else len(model.samples))
    good = model.samples[:count].numpy()
    seeds = [model.record.config.seed * _TWINS + index for index in range(_TWINS)]
    twins = [np.rint(draw_twins(good, seed) * 255.0).astype(np.uint8) for seed in seeds]
    images, labels = np.concatenate([good, *twins]), np.repeat([0, 1], [count, count * _TWINS])
    return {name: float(roc_auc_score(labels, _scores(model, name, images))) for name in _CANDIDATES}


def _scores(model: TrainedModel, name: str, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    network = model.record.config.network
    graph = InspectionGraph(model.encoder, model.decoder, network, design_score(name, network), model.head).eval()
    if name == "relative":
        fit_normal_error(graph, model.samples)
    with torch.no_grad():
        parts = [graph(torch.from_numpy(images[start : start + 16]))[0] for start in range(0, len(images), 16)]
    return np.asarray(torch.cat(parts).numpy(), np.float32)
