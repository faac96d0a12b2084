"""The graph of an autoencoder of features: the frozen backbone, followed by the autoencoder."""

from __future__ import annotations

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onspect.export.memory import append_graph
from onspect.export.scores import SCORES
from onspect.runtime.model.schema import Score
from onspect.runtime.teaching.graph_values import STRIDE
from onspect.training.autoencoder.networks import Decoder, Encoder
from onspect.training.checkpoint import TrainedModel
from onspect.training.features.places import PLACES, PlaceExtractor
from onspect.training.presets import FEATURES
from onspect.training.to_onnx import convert, serialize

HIGHEST = 8
"""Number of places whose mean error is the score; fewer in small images."""

_PLACES_EACH = 32  # places of an image for each place of its score
_SMOOTHED = 3  # size of the smoothing window, in places
_LEAST_ERROR = 1e-4  # least error of a place, for features with standard deviation 1; less is rounding


class FeatureGraph(nn.Module):
    """Module from features to score, error map and latent vectors, place by place.

    The error map is the squared error of the reconstruction, a mean over the features of a place, resized to the image.
    The score is the mean of the highest places of this error, divided by that of good parts and smoothed over 3 x 3
    places.
    """

    normal_error: Tensor

    def __init__(self, encoder: Encoder, decoder: Decoder, rows: int, columns: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.highest = max(1, min(HIGHEST, rows * columns // _PLACES_EACH))
        self.register_buffer("normal_error", torch.ones(1, 1, rows, columns))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return score, error map and latent vectors.

        Parameters
        ----------
        features
            float32 [n, C, h, w].

        Returns
        -------
        tuple[Tensor, Tensor, Tensor]
            score [n], error_map [n, 16 h, 16 w] and latent [n, h * w * n_z], all float32.
        """
        error, codes = self._judge_places(features)
        margin = _SMOOTHED // 2
        padded = F.pad(error / self.normal_error, (margin, margin, margin, margin), mode="replicate")
        smooth = F.avg_pool2d(padded, _SMOOTHED, stride=1)
        score = smooth.flatten(1).topk(self.highest, dim=1).values.mean(dim=1)
        error_map = F.interpolate(error, scale_factor=STRIDE, mode="bilinear", align_corners=False).squeeze(1)
        return score, error_map, codes.reshape(-1, features.shape[2] * features.shape[3] * codes.shape[1])

    def measure_error(self, features: Tensor) -> Tensor:
        """Return the squared error of the reconstruction of each place.

        Parameters
        ----------
        features
            float32 [n, C, h, w].

        Returns
        -------
        Tensor
            float32 [n, 1, h, w], 0 or more.
        """
        return self._judge_places(features)[0]

    def _judge_places(self, features: Tensor) -> tuple[Tensor, Tensor]:
        _, channels, rows, columns = features.shape
        places = features.permute(0, 2, 3, 1).reshape(-1, channels, 1, 1)
        codes, _ = self.encoder(places)
        error = (places - self.decoder(codes)).square().mean(dim=(1, 2, 3))
        return error.reshape(-1, 1, rows, columns), codes


class FeatureModel(nn.Module):
    """Module from images to the outputs of `FeatureGraph`; onnxruntime runs the backbone."""

    def __init__(self, extractor: PlaceExtractor, graph: FeatureGraph) -> None:
        super().__init__()
        self.extractor = extractor
        self.graph = graph

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return score, error map and latent vectors.

        Parameters
        ----------
        image
            uint8 [n, height, width, channels].

        Returns
        -------
        tuple[Tensor, Tensor, Tensor]
            As in `FeatureGraph.forward`.
        """
        found: tuple[Tensor, Tensor, Tensor] = self.graph(torch.from_numpy(self.extractor.extract(image.numpy())))
        return found


def design_features(model: TrainedModel) -> tuple[FeatureModel, Score]:
    """Return a run's model and its score, relative to the error of good parts on the run's sample images.

    Parameters
    ----------
    model
        A run on features.

    Returns
    -------
    tuple[FeatureModel, Score]
        The model, and the definition of its score for the model file.
    """
    assert model.extractor is not None
    extractor = PlaceExtractor.open(model.extractor)
    features = torch.from_numpy(extractor.extract(model.samples.numpy()))
    graph = FeatureGraph(model.encoder, model.decoder, *features.shape[2:]).eval()
    fit_normal_error(graph, features)
    return FeatureModel(extractor, graph), SCORES[FEATURES].define(max(features.shape[2:]))


def fit_normal_error(graph: FeatureGraph, features: Tensor) -> None:
    """Measure the mean error of good images at each place.

    A tenth of the mean over all places is added. Otherwise a small error at a place that was always perfect gives a
    very high score.

    Parameters
    ----------
    graph
        The graph; its ``normal_error`` is changed in place.
    features
        Features of good images, float32 [n, C, h, w].
    """
    with torch.no_grad():
        errors = torch.cat([graph.measure_error(features[start : start + 16]) for start in range(0, len(features), 16)])
    mean = errors.mean(dim=0, keepdim=True)
    graph.normal_error.copy_((mean + 0.1 * mean.mean()).clamp_min(_LEAST_ERROR))


def convert_features(model: FeatureModel, samples: np.ndarray) -> bytes:
    """Return the whole graph from an image to ``score``, ``error_map`` and ``latent``.

    Parameters
    ----------
    model
        The model.
    samples
        Two images or more, uint8 [n, height, width, channels].

    Returns
    -------
    bytes
        The ONNX file.

    Raises
    ------
    ExportError
        If backbone and autoencoder do not fit together.
    """
    features = torch.from_numpy(model.extractor.extract(samples))
    head = onnx.load_from_string(convert(model.graph, features, PLACES, ["score", "error_map", "latent"]))
    trunk = onnx.load_from_string(model.extractor.graph)
    del trunk.graph.output[:], trunk.graph.value_info[:]
    append_graph(trunk, head, "head.")
    return serialize(trunk, "the graph of the features and the autoencoder do not fit together")
