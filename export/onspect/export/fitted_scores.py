"""Scores of a whole image that are fitted to good images. Each is a module that becomes part of the model file's graph.

Every score is 0 or more, and higher is worse. None has seen a defect or a label. docs/scores.md describes each score
and its source.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from onspect.export.layers import to_planes
from onspect.training.autoencoder.losses import kl_divergence
from onspect.training.autoencoder.networks import Critic, Decoder
from onspect.training.checkpoint import TrainedModel

COMPONENTS = ("normalised", "latent", "contrast", "statistics")
"""Components of ``combined``."""

_POOLED_SIDE = 16  # side of pooled residuals: finer ones are mostly noise, and the matrix stays small
_DIRECTIONS = 128
_SCALES = (1, 2, 4, 8)  # sides of the squares of pixels for an image's statistics
_LEAST_SIDE = 4
_CONTRAST_FLOOR = 0.02
_COMPLEXITY_FLOOR = 0.02  # share of the mean complexity of good images
_RIDGE = 1e-3
_DRAWS = 8
_BATCH = 64
_FEWEST_HELD_OUT = 32
_LOGISTIC = 1.702  # with this slope, the logistic curve differs from the Gaussian's by at most 0.01


class ModelOutputs(NamedTuple):
    """Inputs and outputs of the networks for a batch of images."""

    planes: Tensor
    """The images, float32 [n, channels, height, width], 0 to 1."""
    reconstruction: Tensor
    """The reconstructions, with the shape and range of `planes`."""
    latent: Tensor
    """The latent vectors, float32 [n, n_z]."""
    log_sigma: Tensor | None
    """Logarithm of the latent's standard deviation, float32 [n, n_z]; None without a VAE."""


def fit_measures(
    model: TrainedModel, names: Sequence[str], images: NDArray[np.uint8], held_out: NDArray[np.uint8]
) -> dict[str, nn.Module]:
    """Fit scores to the good images that a run was trained on.

    Parameters
    ----------
    model
        The trained networks.
    names
        Names of fitted scores in `SCORES` that the variant has.
    images
        Training images, uint8 [n, height, width, channels].
    held_out
        Held-out images, uint8 [n, height, width, channels]. ``combined`` compares its components on them; with fewer
        than 32, on the training images too.

    Returns
    -------
    dict[str, nn.Module]
        Module of each score, from `ModelOutputs` to float32 [n].
    """
    wanted = dict.fromkeys((*names, *(COMPONENTS if "combined" in names else ())))
    described: dict[str, list[Tensor]] = {name: [] for name in wanted if name in _FITS}
    with torch.no_grad():
        for view in _look(model, images):
            for name, found in described.items():
                found.append(_FITS[name].describe(view))
        measures = {name: _FITS[name].make(model, torch.cat(found)) for name, found in described.items()}
        if "combined" in wanted:
            enough = held_out if len(held_out) >= _FEWEST_HELD_OUT else np.concatenate([held_out, images])
            measures["combined"] = Combined([measures[name] for name in COMPONENTS], list(_look(model, enough)))
    return {name: measures[name].eval() for name in names}


def _look(model: TrainedModel, images: NDArray[np.uint8]) -> Iterator[ModelOutputs]:
    for start in range(0, len(images), _BATCH):
        planes = to_planes(torch.from_numpy(np.ascontiguousarray(images[start : start + _BATCH])))
        latent, log_sigma = model.encoder(planes)
        yield ModelOutputs(planes, model.decoder(latent), latent, log_sigma)


class Normalised(nn.Module):
    """Mean squared error, divided by the image's own complexity: the part of it that differs from its local mean."""

    def __init__(self, usual: float) -> None:
        super().__init__()
        self.floor = max(1e-6, _COMPLEXITY_FLOOR * usual)

    def forward(self, view: ModelOutputs) -> Tensor:
        """Return the score.

        Parameters
        ----------
        view
            Inputs and outputs of the networks.

        Returns
        -------
        Tensor
            float32 [n], 0 or more.
        """
        error = (view.planes - view.reconstruction).square().mean(dim=(1, 2, 3))
        return error / (_complexity(view.planes) + self.floor)


class PpcaDistance(nn.Module):
    """Squared distance of an image's description from those of good images, in their standard deviations.

    The distance is divided by the number of dimensions. The most variable dimensions are used as they are, and the
    others share one variance (probabilistic principal components, Tipping and Bishop, 1999).

    Parameters
    ----------
    describe
        Function from `ModelOutputs` to descriptions [n, dimensions].
    vectors
        Descriptions of good images, float64 [n, dimensions].
    """

    def __init__(self, describe: Callable[[ModelOutputs], Tensor], vectors: Tensor) -> None:
        super().__init__()
        self.describe = describe
        mean = vectors.mean(dim=0)
        spread = vectors.std(dim=0).clamp_min(1e-6) if vectors.shape[1] <= _DIRECTIONS else torch.ones_like(mean)
        centred = (vectors - mean) / spread
        variances, directions = torch.linalg.eigh(centred.T @ centred / len(vectors))
        ridge = _RIDGE * variances.mean()
        variances = variances.flip(0).clamp_min(0.0) + ridge
        directions = directions.flip(1)
        kept = min(_DIRECTIONS, len(mean), max(1, len(vectors) // 4))
        self.rest = float(variances[kept:].mean()) if kept < len(mean) else None
        self.register_buffer("mean", mean.float())
        self.register_buffer("scale", (1.0 / spread).float())
        self.register_buffer("directions", directions[:, :kept].float().contiguous())
        self.register_buffer("inverse", variances[:kept].rsqrt().float())
        self.dimensions = len(mean)

    def forward(self, view: ModelOutputs) -> Tensor:
        """Return the score; good images have about 1.

        Parameters
        ----------
        view
            Inputs and outputs of the networks.

        Returns
        -------
        Tensor
            float32 [n], 0 or more.
        """
        offset = (self.describe(view) - self.get_buffer("mean")) * self.get_buffer("scale")
        known = offset @ self.get_buffer("directions")
        distance = (known * self.get_buffer("inverse")).square().sum(dim=1)
        if self.rest is not None:
            unknown = offset - known @ self.get_buffer("directions").T  # a difference of squares would lose precision
            distance = distance + unknown.square().sum(dim=1) / self.rest
        return distance / self.dimensions


class KlScore(nn.Module):
    """Divergence of an image's latent distribution from the prior (Eq. 4), VAE only."""

    def forward(self, view: ModelOutputs) -> Tensor:
        """Return the score.

        Parameters
        ----------
        view
            Inputs and outputs of the networks.

        Returns
        -------
        Tensor
            float32 [n], 0 or more.
        """
        assert view.log_sigma is not None
        return kl_divergence(view.latent, view.log_sigma).clamp_min(0.0)


class ReconstructionProbability(nn.Module):
    """Negative reconstruction probability of a VAE (An and Cho, 2015), up to constants: the mean error over draws of z.

    The draws are fixed and symmetric, so an image always has the same score.
    """

    def __init__(self, decoder: Decoder, latent: int) -> None:
        super().__init__()
        self.decoder = decoder
        half = torch.randn(_DRAWS // 2, latent, generator=torch.Generator().manual_seed(0))
        self.register_buffer("noise", torch.cat([half, -half]))

    def forward(self, view: ModelOutputs) -> Tensor:
        """Return the score.

        Parameters
        ----------
        view
            Inputs and outputs of the networks.

        Returns
        -------
        Tensor
            float32 [n], 0 or more.
        """
        assert view.log_sigma is not None
        sigma = view.log_sigma.exp()
        errors = [
            (view.planes - self.decoder(view.latent + sigma * noise)).square().mean(dim=(1, 2, 3))
            for noise in self.get_buffer("noise")
        ]
        return torch.stack(errors).mean(dim=0)


class CriticScore(nn.Module):
    """Score of the AAE's critic for an image's latent vector.

    Its unit is the standard deviation of good images, and a softplus follows. It is high if the vector does not look
    like a draw from the prior. The critic's last Leaky ReLU does not change the order of scores. Its clipped weights
    are so small that float32 rounds the differences of its outputs away. Both are undone here.
    """

    def __init__(self, critic: Critic, codes: Tensor) -> None:
        super().__init__()
        first, _, last, _ = critic.layers
        assert isinstance(first, nn.Linear)
        assert isinstance(last, nn.Linear)
        self.first = first
        hidden = F.leaky_relu(first(codes)).double()
        mean, weight = hidden.mean(dim=0), last.weight[0].double()
        spread = ((hidden - mean) @ weight).std().clamp_min(1e-12)
        self.register_buffer("mean", mean.float())
        self.register_buffer("weight", (-weight / spread).float())

    def forward(self, view: ModelOutputs) -> Tensor:
        """Return the score.

        Parameters
        ----------
        view
            Inputs and outputs of the networks.

        Returns
        -------
        Tensor
            float32 [n], 0 or more.
        """
        hidden = F.leaky_relu(self.first(view.latent))
        return F.softplus((hidden - self.get_buffer("mean")) @ self.get_buffer("weight"))


class Combined(nn.Module):
    """Sum over the components of minus the logarithm of the share of good images with a higher score.

    This is Fisher's method to combine tests (1925). The share is that of a logistic curve through mean and standard
    deviation of the logarithm of each component on held-out good images. It has a value for any score.
    """

    def __init__(self, components: Sequence[nn.Module], views: Sequence[ModelOutputs]) -> None:
        super().__init__()
        self.components = nn.ModuleList(components)
        logs = torch.cat([self._logarithms(view) for view in views]).double()
        spread = logs.std(dim=0).clamp_min(1e-6) if len(logs) > 1 else torch.ones(len(self.components))
        self.register_buffer("mean", logs.mean(dim=0).float())
        self.register_buffer("slope", (_LOGISTIC / spread).float())

    def forward(self, view: ModelOutputs) -> Tensor:
        """Return the score.

        Parameters
        ----------
        view
            Inputs and outputs of the networks.

        Returns
        -------
        Tensor
            float32 [n], 0 or more.
        """
        steps = (self._logarithms(view) - self.get_buffer("mean")) * self.get_buffer("slope")
        return F.softplus(steps).sum(dim=1)

    def _logarithms(self, view: ModelOutputs) -> Tensor:
        return torch.stack([component(view) for component in self.components], dim=1).clamp_min(1e-9).log()


def _complexity(planes: Tensor) -> Tensor:
    """Return the mean squared difference of images from their local mean (a third of the longer side), [n]."""
    radius = max(1, round(max(planes.shape[2:]) / 6))
    padded = F.pad(planes, (radius, radius, radius, radius), mode="replicate")
    return (planes - F.avg_pool2d(padded, 2 * radius + 1, stride=1)).square().mean(dim=(1, 2, 3))


def _describe_residual(view: ModelOutputs) -> Tensor:
    return _shrink(view.planes - view.reconstruction).flatten(1)


def _describe_latent(view: ModelOutputs) -> Tensor:
    return view.latent


def _describe_statistics(view: ModelOutputs) -> Tensor:
    """Return mean, colours, energies of image and residual at several scales, and latent vector over contrast."""
    planes = view.planes
    mean = planes.mean(dim=(2, 3))
    found = [mean, view.latent / _contrast(planes)]
    for scale in _scales(planes):
        pooled = planes if scale == 1 else F.avg_pool2d(planes, scale)
        found += [_energy(pooled, 1e-5)]
        found += [
            _energy(pooled[..., 1:] - pooled[..., :-1], 1e-5),
            _energy(pooled[..., 1:, :] - pooled[..., :-1, :], 1e-5),
        ]
    residual = planes - view.reconstruction
    for scale in _scales(planes)[:3]:
        found.append(_energy(residual if scale == 1 else F.avg_pool2d(residual, scale), 1e-6))
    if planes.shape[1] == 3:
        offset = planes - mean[:, :, None, None]
        deviation = (offset.square().mean(dim=(2, 3)) + 1e-5).sqrt()
        for one, other in ((0, 1), (0, 2), (1, 2)):
            product = (offset[:, one] * offset[:, other]).mean(dim=(1, 2))
            found.append((product / (deviation[:, one] * deviation[:, other]))[:, None])
    return torch.cat(found, dim=1)


@dataclass(frozen=True)
class _Fit:
    """How a score is fitted to good images."""

    make: Callable[[TrainedModel, Tensor], nn.Module]
    """Makes the score from the networks and the descriptions of all good images, float32 [n, ...]."""
    describe: Callable[[ModelOutputs], Tensor] = _describe_latent
    """Describes a batch of images."""


def _fit_distance(describe: Callable[[ModelOutputs], Tensor]) -> _Fit:
    return _Fit(lambda _, found: PpcaDistance(describe, found.double()), describe)


def _make_critic(model: TrainedModel, codes: Tensor) -> CriticScore:
    assert model.critic is not None
    return CriticScore(model.critic, codes)


_FITS: dict[str, _Fit] = {
    "whitened": _fit_distance(_describe_residual),
    "contrast": _fit_distance(lambda view: _describe_residual(view) / _contrast(view.planes)),
    "latent": _fit_distance(_describe_latent),
    "statistics": _fit_distance(_describe_statistics),
    "normalised": _Fit(lambda _, found: Normalised(float(found.mean())), lambda view: _complexity(view.planes)),
    "kl": _Fit(lambda *_: KlScore()),
    "probability": _Fit(lambda model, codes: ReconstructionProbability(model.decoder, codes.shape[1])),
    "critic": _Fit(_make_critic),
}
"""One row for each fitted score but ``combined``, which is fitted to the others."""


def _contrast(planes: Tensor) -> Tensor:
    """Return the standard deviation of each image's values plus a small constant, [n, 1], above 0."""
    flat = planes.flatten(1)
    offset = flat - flat.mean(dim=1, keepdim=True)
    return offset.square().mean(dim=1, keepdim=True).sqrt() + _CONTRAST_FLOOR


def _scales(planes: Tensor) -> list[int]:
    return [scale for scale in _SCALES if min(planes.shape[2:]) >= _LEAST_SIDE * scale]


def _shrink(planes: Tensor) -> Tensor:
    factor = -(-max(planes.shape[2:]) // _POOLED_SIDE)
    factor = min(factor, min(planes.shape[2:]))
    return planes if factor == 1 else F.avg_pool2d(planes, factor)


def _energy(planes: Tensor, floor: float) -> Tensor:
    """Return the logarithm of each channel's variance, [n, c]; floor keeps it finite."""
    offset = planes - planes.mean(dim=(2, 3), keepdim=True)
    return (offset.square().mean(dim=(2, 3)) + floor).log()
