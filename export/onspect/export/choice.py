"""Which score a run is exported with where nobody says: decided on synthetic defects, never on labelled images."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor

from onspect.export.graph import InspectionGraph, design_score, fit_normal_error
from onspect.runtime.errors import ChoiceError
from onspect.runtime.model_file import Score, Tiling
from onspect.training.checkpoint import TrainedModel
from onspect.training.defects import VISIBLE
from onspect.training.head_batches import draw_twins
from onspect.training.tiles import place_of, take_one_each

_IMAGES = 64
_FEWEST = 8  # held-out images on which the two can be told apart; with fewer, training images join them
_TWINS = 3  # defective twins drawn of each
_CANDIDATES = ("head", "relative")


def choose_score(model: TrainedModel, mask: Tensor | None = None) -> Score:
    """Return the score for a run: the mean squared error for preset ``paper``, the relative peak without a head.

    With a head, the one of ``head`` and ``relative`` that better tells synthetic defects, drawn on held-out good
    images, from the images themselves. A head is at its best on textures, where parts differ from each other; the
    autoencoder's error is on parts that look and lie alike, where a head may not know what belongs to the part.
    mask is as in `InspectionGraph`. Raises ChoiceError where too few synthetic defects come to lie where it inspects.
    """
    network = model.record.config.network
    if model.head is None:
        return design_score("mse" if model.record.config.preset == "paper" else "relative", network)
    areas = measure_scores(model, mask)
    best = max(_CANDIDATES, key=lambda name: areas[name])
    found = ", ".join(f"{name} {areas[name]:.3f}" for name in _CANDIDATES)
    return design_score(best, network, why=f"AUROC on synthetic defects drawn on held-out images: {found}")


def measure_scores(model: TrainedModel, mask: Tensor | None = None) -> dict[str, float]:
    """Return the AUROC of each score that a run with a head can have, on synthetic defects that a mask shows."""
    held_out = len(model.record.data.held_out)
    count = min(_IMAGES, held_out if held_out >= _FEWEST else len(model.samples))
    good = model.samples[:count].numpy()
    seeds = [model.record.config.seed * _TWINS + index for index in range(_TWINS)]
    twins = np.concatenate([_draw_twins(good, seed, model.record.config.tiling) for seed in seeds])
    if mask is not None:
        twins = _keep_shown(twins, np.tile(good, (_TWINS, 1, 1, 1)), mask.numpy())
    images, labels = np.concatenate([good, twins]), np.repeat([0, 1], [count, len(twins)])
    return {name: float(roc_auc_score(labels, _scores(model, name, images, mask))) for name in _CANDIDATES}


def _draw_twins(good: NDArray[np.uint8], seed: int, tiling: Tiling | None) -> NDArray[np.uint8]:
    """Return a defective twin of each image; with tiles, the defect is one of a tile of it, as the head was taught."""
    if tiling is None:
        return _to_bytes(draw_twins(good, seed))
    twins = good.copy()
    tiles = _to_bytes(draw_twins(take_one_each(good, tiling), seed))
    for index, (twin, tile) in enumerate(zip(twins, tiles, strict=True)):
        top, left = place_of(tiling, index % tiling.count)
        twin[top : top + tiling.height, left : left + tiling.width] = tile
    return twins


def _to_bytes(images: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.asarray(np.rint(images * 255.0), np.uint8)


def _keep_shown(twins: NDArray[np.uint8], good: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return the twins whose defects can be seen, at their strongest, in inspected places."""
    changes = np.abs(twins.astype(np.int16) - good).mean(axis=3)
    shown: NDArray[np.uint8] = twins[(changes * mask).max(axis=(1, 2)) > VISIBLE * 255.0]
    if len(shown) < _FEWEST:
        raise ChoiceError(
            f"only {len(shown)} of {len(twins)} synthetic defects lie in the {mask.mean():.2%} of the image that the "
            "mask has inspected, too few to choose a score by: give one with --score, such as relative"
        )
    return shown


def _scores(model: TrainedModel, name: str, images: NDArray[np.uint8], mask: Tensor | None) -> NDArray[np.float32]:
    network = model.record.config.network
    score = design_score(name, network)
    tiling = model.record.config.tiling
    graph = InspectionGraph(model.encoder, model.decoder, network, score, model.head, mask=mask, tiling=tiling).eval()
    if name == "relative":
        fit_normal_error(graph, model.samples)
    with torch.no_grad():
        parts = [graph(torch.from_numpy(images[start : start + 16]))[0] for start in range(0, len(images), 16)]
    return np.asarray(torch.cat(parts).numpy(), np.float32)
