"""Scores of a whole image that are fitted to good images: each a module that goes into the model file's graph.

Every one is a number of 0 or more, higher is worse, and none has seen a defect or a label. docs/networks.md says what
each computes and where it comes from.
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

from onspect.export.layers.planes import to_planes
from onspect.training.autoencoder.losses import kl_divergence
from onspect.training.autoencoder.networks import Critic, Decoder, Encoder

COMPONENTS = ("normalised", "latent", "contrast", "statistics")
"""What ``combined`` is made of."""

_POOLED_SIDE = 16  # of residuals that are whitened: finer ones are mostly noise, and the matrix stays small
_DIRECTIONS = 128
_SCALES = (1, 2, 4, 8)  # squares of pixels over which an image's statistics are taken
_LEAST_SIDE = 4
_CONTRAST_FLOOR = 0.02
_COMPLEXITY_FLOOR = 0.02  # as a share of good images' mean complexity
_RIDGE = 1e-3
_DRAWS = 8
_BATCH = 64
_FEWEST_HELD_OUT = 32
_LOGISTIC = 1.702  # the logistic curve with this slope is nowhere further than 0.01 from the Gaussian's


class ModelOutputs(NamedTuple):
    """What a measure sees of images: planes and reconstruction [n, c, h, w] in 0..1, latent and log_sigma [n, n_z]."""

    planes: Tensor
    reconstruction: Tensor
    latent: Tensor
    log_sigma: Tensor | None


@dataclass(frozen=True)
class Networks:
    """The trained networks, in evaluation mode; critic is None but for an AAE."""

    encoder: Encoder
    decoder: Decoder
    critic: Critic | None

    def view(self, planes: Tensor) -> ModelOutputs:
        """Return what is to be seen of images."""
        latent, log_sigma = self.encoder(planes)
        return ModelOutputs(planes, self.decoder(latent), latent, log_sigma)


def fit_measures(
    networks: Networks, names: Sequence[str], images: NDArray[np.uint8], held_out: NDArray[np.uint8]
) -> dict[str, nn.Module]:
    """Fit measures to the good images that a run was trained on, uint8 [n, h, w, c], and return them by name.

    ``combined`` compares its components on the images held out, whose gradients the networks have not seen; with fewer
    than 32 of those, on the training images too. The variant must have the measures (`ScoreSpec.check`).
    """
    wanted = dict.fromkeys((*names, *(COMPONENTS if "combined" in names else ())))
    described: dict[str, list[Tensor]] = {name: [] for name in wanted if name in _DESCRIPTIONS}
    complexities = []
    codes = []
    with torch.no_grad():
        for view in _look(networks, images):
            for name, vectors in described.items():
                vectors.append(_DESCRIPTIONS[name](view).double())
            complexities.append(_complexity(view.planes))
            if "critic" in wanted:
                codes.append(view.latent)
        measures: dict[str, nn.Module] = {}
        for name in wanted:
            if name in described:
                measures[name] = PpcaDistance(_DESCRIPTIONS[name], torch.cat(described.pop(name)))
            elif name == "normalised":
                measures[name] = Normalised(float(torch.cat(complexities).mean()))
            elif name == "kl":
                measures[name] = KlScore()
            elif name == "probability":
                measures[name] = ReconstructionProbability(networks.decoder, networks.encoder.latent.out_features)
            elif name == "critic":
                assert networks.critic is not None
                measures[name] = CriticScore(networks.critic, torch.cat(codes))
        if "combined" in wanted:
            enough = held_out if len(held_out) >= _FEWEST_HELD_OUT else np.concatenate([held_out, images])
            measures["combined"] = Combined([measures[name] for name in COMPONENTS], list(_look(networks, enough)))
    return {name: measures[name].eval() for name in names}


def _look(networks: Networks, images: NDArray[np.uint8]) -> Iterator[ModelOutputs]:
    for start in range(0, len(images), _BATCH):
        yield networks.view(to_planes(torch.from_numpy(np.ascontiguousarray(images[start : start + _BATCH]))))


class Normalised(nn.Module):
    """The mean squared error over the image's own complexity: how much of it is not its local mean."""

    def __init__(self, usual: float) -> None:
        super().__init__()
        self.floor = max(1e-6, _COMPLEXITY_FLOOR * usual)

    def forward(self, view: ModelOutputs) -> Tensor:
        """Return the measure, [n]."""
        error = (view.planes - view.reconstruction).square().mean(dim=(1, 2, 3))
        return error / (_complexity(view.planes) + self.floor)


class PpcaDistance(nn.Module):
    """How far a description of an image lies from those of good ones, in their own spread: squared, per dimension.

    Of many dimensions the most variable ones are taken as they are and the others as one variance (probabilistic
    principal components, Tipping and Bishop 1999).
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
        """Return the measure, [n]; 1 is about what good images have."""
        offset = (self.describe(view) - self.get_buffer("mean")) * self.get_buffer("scale")
        known = offset @ self.get_buffer("directions")
        distance = (known * self.get_buffer("inverse")).square().sum(dim=1)
        if self.rest is not None:
            unknown = (
                offset - known @ self.get_buffer("directions").T
            )  # the difference of squares would lose its digits
            distance = distance + unknown.square().sum(dim=1) / self.rest
        return distance / self.dimensions


class KlScore(nn.Module):
    """The VAE's divergence of an image's code from the prior (Eq. 4)."""

    def forward(self, view: ModelOutputs) -> Tensor:
        """Return the measure, [n]."""
        assert view.log_sigma is not None
        return kl_divergence(view.latent, view.log_sigma).clamp_min(0.0)


class ReconstructionProbability(nn.Module):
    """The VAE's negative reconstruction probability (An and Cho 2015), up to constants: the mean error over draws of z.

    The draws are fixed, and each comes with its opposite, so that an image has the same score every time.
    """

    def __init__(self, decoder: Decoder, latent: int) -> None:
        super().__init__()
        self.decoder = decoder
        half = torch.randn(_DRAWS // 2, latent, generator=torch.Generator().manual_seed(0))
        self.register_buffer("noise", torch.cat([half, -half]))

    def forward(self, view: ModelOutputs) -> Tensor:
        """Return the measure, [n]."""
        assert view.log_sigma is not None
        sigma = view.log_sigma.exp()
        errors = [
            (view.planes - self.decoder(view.latent + sigma * noise)).square().mean(dim=(1, 2, 3))
            for noise in self.get_buffer("noise")
        ]
        return torch.stack(errors).mean(dim=0)


class CriticScore(nn.Module):
    """How little the AAE's critic takes an image's code for a draw from the prior, in good images' spread; softplus.

    The critic's last Leaky ReLU keeps the order, and its weights are clipped so small that the differences of its
    outputs drown in float32's rounding; both are undone here.
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
        """Return the measure, [n]."""
        hidden = F.leaky_relu(self.first(view.latent))
        return F.softplus((hidden - self.get_buffer("mean")) @ self.get_buffer("weight"))


class Combined(nn.Module):
    """The sum of the components' surprise: minus the logarithm of the share of good images that would score higher.

    That is Fisher's way to combine tests (1925). The share is that of a logistic curve through the mean and spread of
    the logarithm of each component on held-out good images, which has a value however far out an image lies.
    """

    def __init__(self, components: Sequence[nn.Module], views: Sequence[ModelOutputs]) -> None:
        super().__init__()
        self.components = nn.ModuleList(components)
        logs = torch.cat([self._logarithms(view) for view in views]).double()
        spread = logs.std(dim=0).clamp_min(1e-6) if len(logs) > 1 else torch.ones(len(self.components))
        self.register_buffer("mean", logs.mean(dim=0).float())
        self.register_buffer("slope", (_LOGISTIC / spread).float())

    def forward(self, view: ModelOutputs) -> Tensor:
        """Return the measure, [n]."""
        steps = (self._logarithms(view) - self.get_buffer("mean")) * self.get_buffer("slope")
        return F.softplus(steps).sum(dim=1)

    def _logarithms(self, view: ModelOutputs) -> Tensor:
        return torch.stack([component(view) for component in self.components], dim=1).clamp_min(1e-9).log()


def _complexity(planes: Tensor) -> Tensor:
    """Return the mean squared difference of images from their local mean over about a third of the longer side, [n]."""
    radius = max(1, round(max(planes.shape[2:]) / 6))
    padded = F.pad(planes, (radius, radius, radius, radius), mode="replicate")
    return (planes - F.avg_pool2d(padded, 2 * radius + 1, stride=1)).square().mean(dim=(1, 2, 3))


def _describe_residual(view: ModelOutputs) -> Tensor:
    return _shrink(view.planes - view.reconstruction).flatten(1)


def _describe_contrast(view: ModelOutputs) -> Tensor:
    return _describe_residual(view) / _contrast(view.planes)


def _describe_latent(view: ModelOutputs) -> Tensor:
    return view.latent


def _describe_statistics(view: ModelOutputs) -> Tensor:
    """Return an image's mean and colours, its energies and its residual's at several scales, its code over contrast."""
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


_DESCRIPTIONS: dict[str, Callable[[ModelOutputs], Tensor]] = {
    "whitened": _describe_residual,
    "contrast": _describe_contrast,
    "latent": _describe_latent,
    "statistics": _describe_statistics,
}


def _contrast(planes: Tensor) -> Tensor:
    """Return the standard deviation of each image's values, [n, 1], and a bit more, so that it is never 0."""
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
