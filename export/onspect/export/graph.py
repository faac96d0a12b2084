"""The graph that goes into the model file: scaling, encoder, decoder, error map and score in one module."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from onspect.export.fitted_scores import ModelOutputs
from onspect.export.layers.gaussian import GaussianSmoothing
from onspect.export.layers.planes import to_planes
from onspect.export.layers.roi_mask import FillIgnored, MaskedMap
from onspect.export.scores import SCORES, Reduction
from onspect.runtime.model.schema import Score, Tiling
from onspect.training.autoencoder.networks import Decoder, Encoder
from onspect.training.config import NetworkConfig
from onspect.training.tiles import Cut, Stitching


class InspectionGraph(nn.Module):
    """From uint8 [n, height, width, channels] to score [n], error_map [n, height, width], reconstruction and latent.

    error_map is the squared error, a mean over channels, smoothed where the score says so; for ``relative`` it is a
    multiple of what good parts show at that place, and so it is for ``expected``, of the error over that which the
    decoder expects of this image. score is its mean (``mse``, Eq. 2), its maximum, or the fitted measure of the image;
    the error map is then that of ``mse``.
    reconstruction is float32 [n, channels, height, width] in 0..1, latent float32 [n, n_z]; the VAE's is its mean, so
    that a score is the same every time.

    mask, bool [height, width], is true where a part is inspected: the mean and the maximum are over those places, the
    error map is 0 in all others, and what an image shows there changes nothing. tiling: the networks see the images'
    tiles, all as one batch; reconstruction and expected error (its logarithm) are stitched from theirs, before any
    error is taken or smoothed, and latent is float32 [n, tiles * n_z], row by row of tiles.
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
        """Return score, error_map, reconstruction and latent."""
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
    """Measure what good images, uint8 [n, height, width, channels], show at each place: the mean of their maps.

    A tenth of the mean over all inspected places is added, so that a place that was always perfect does not make much
    of nothing, and no place is taken to be better than the rounding to 8 bits, or a tenth of what the decoder expects.
    """
    graph.normal_error.fill_(1.0)
    with torch.no_grad():
        maps = torch.cat([graph(images[start : start + 16])[1] for start in range(0, len(images), 16)])
    mean = maps.mean(dim=0)
    overall = mean.mean() if graph.inspected is None else graph.inspected.mean(mean[None])
    graph.normal_error.copy_((mean + 0.1 * overall).clamp_min(graph.spec.normal_floor or 0.0))
