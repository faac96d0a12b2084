"""The graph that goes into the model file: scaling, encoder, decoder, error map and score in one module."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from onspect.export.fitted_scores import ModelOutputs
from onspect.export.layers import FillIgnored, GaussianSmoothing, MaskedMap, to_planes
from onspect.export.scores import SCORES, Reduction
from onspect.runtime.model.schema import Score, Tiling
from onspect.training.autoencoder.networks import Decoder, Encoder
from onspect.training.config import NetworkConfig
from onspect.training.tiles import Cut, Stitching


class InspectionGraph(nn.Module):
    """Module from images to score, error map, reconstruction and latent vector; it becomes the graph of the model file.

    The error map is the squared error, a mean over channels, smoothed if the score asks for it. For ``relative`` it is
    divided by the error of good parts at each place, for ``expected`` by the error that the decoder predicts. The score
    is its mean (``mse``, Eq. 2), its maximum, or a fitted score of the image. With a fitted score, the error map is
    that of ``mse``. The latent vector of a VAE is its mean, so that an image always has the same score.

    Parameters
    ----------
    encoder, decoder
        The trained networks.
    network
        Their layers.
    score
        Definition of the score.
    measure
        Module of a fitted score; None for other scores.
    mask
        bool [height, width], True where parts are inspected. The error map is 0 in ignored places, and their pixels
        have no influence. None for no mask.
    tiling
        Tiles that the networks see, all as one batch. Reconstruction and predicted error are stitched before the error
        is computed. None for whole images.
    """

    normal_error: Tensor

    def __init__(
        self,
        encoder: Encoder,
        decoder: Decoder,
        network: NetworkConfig,
        score: Score,
        measure: nn.Module | None = None,
        mask: Tensor | None = None,
        tiling: Tiling | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.score, self.spec = score, SCORES[score.name]
        self.measure = measure
        width, height = (network.width, network.height) if tiling is None else tiling.image_size
        self.smooth = GaussianSmoothing(score.smoothing, height, width) if score.smoothing else nn.Identity()
        self.register_buffer("normal_error", torch.ones(1, 1, height, width))
        self.tiles = 1 if tiling is None else tiling.count
        self.cut = nn.Identity() if tiling is None else Cut(tiling)
        self.stitch = nn.Identity() if tiling is None else Stitching(tiling)
        self.surroundings = nn.Identity() if mask is None else FillIgnored(mask)
        self.inspected = None if mask is None else MaskedMap(mask, self.smooth)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return score, error map, reconstruction and latent vector.

        Parameters
        ----------
        image
            uint8 [n, height, width, channels].

        Returns
        -------
        tuple[Tensor, Tensor, Tensor, Tensor]
            score [n], error_map [n, height, width], reconstruction [n, channels, height, width] from 0 to 1, and latent
            [n, n_z], or [n, tiles * n_z] row by row of tiles. All are float32.
        """
        planes = self.surroundings(to_planes(image))
        codes, log_sigma = self.encoder(self.cut(planes))
        expects = self.spec.expects
        reconstructions, log_expected = self.decoder.expect(codes) if expects else (self.decoder(codes), None)
        latent = codes if self.tiles == 1 else codes.reshape(-1, self.tiles * codes.shape[1])
        reconstruction = self.stitch(reconstructions)
        error_map = self._map_error(planes, reconstruction, log_expected).squeeze(1)
        if self.measure is not None:
            score = self.measure(ModelOutputs(planes, reconstruction, latent, log_sigma))
        elif self.spec.reduction is Reduction.MEAN:
            score = error_map.mean(dim=(1, 2)) if self.inspected is None else self.inspected.mean(error_map)
        else:
            assert self.spec.reduction is Reduction.MAXIMUM, f"InspectionGraph has no branch for {self.spec.reduction}"
            score = error_map.amax(dim=(1, 2))
        return score, error_map, reconstruction, latent

    def _map_error(self, planes: Tensor, reconstruction: Tensor, log_expected: Tensor | None) -> Tensor:
        error = (planes - reconstruction).square()
        error = error if error.shape[1] == 1 else error.mean(dim=1, keepdim=True)
        if log_expected is not None:
            error = error * torch.exp(-self.stitch(log_expected))
        smoothed: Tensor = self.smooth(error) if self.inspected is None else self.inspected(error, self.smooth)
        return smoothed / self.normal_error if self.spec.is_relative else smoothed


def fit_normal_error(graph: InspectionGraph, images: Tensor) -> None:
    """Measure the mean error map of good images.

    A tenth of the mean over all inspected places is added, so that a place that was always perfect does not give very
    high values. No place is below the rounding to 8 bits, or a tenth of the predicted error.

    Parameters
    ----------
    graph
        The graph; its ``normal_error`` is changed in place.
    images
        Good images, uint8 [n, height, width, channels].
    """
    graph.normal_error.fill_(1.0)
    with torch.no_grad():
        maps = torch.cat([graph(images[start : start + 16])[1] for start in range(0, len(images), 16)])
    mean = maps.mean(dim=0)
    overall = mean.mean() if graph.inspected is None else graph.inspected.mean(mean[None])
    graph.normal_error.copy_((mean + 0.1 * overall).clamp_min(graph.spec.normal_floor or 0.0))
