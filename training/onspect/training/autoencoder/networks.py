"""One encoder and one decoder for all three variants, and the AAE's critic (paper, Tables 1 to 4)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from onspect.training.config import NetworkConfig

_KERNEL = 3
_CRITIC_HIDDEN = 10
_LOWEST, _HIGHEST = math.log(1.0 / 255.0**2 / 12.0), math.log(0.25)
"""Bounds of the logarithm of a predicted squared error: the rounding to 8 bits, and half the range of grey levels."""


class Encoder(nn.Module):
    """Encoder from an image to its latent vector: conv1 to convB, lin1, then the bottleneck.

    An autoencoder of features has no convolutions. Its input is one place, [n, channels, 1, 1].
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = config.channels
        for filters, stride in zip(config.filters, config.strides, strict=True):
            layers += [nn.Conv2d(inputs, filters, _KERNEL, stride=stride, padding=1), nn.LeakyReLU()]
            inputs = filters
        self.convolutions = nn.Sequential(*layers)
        height, width = map_sizes(config)[-1]
        self.hidden = nn.Sequential(nn.Linear(inputs * height * width, config.hidden), nn.LeakyReLU())
        self.latent = nn.Linear(config.hidden, config.latent)
        self.log_sigma = nn.Linear(config.hidden, config.latent) if config.variant == "vae" else None
        _initialise(self)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the latent vector, and for the VAE the logarithm of its standard deviation.

        Parameters
        ----------
        image
            float32 [n, channels, height, width], 0 to 1.

        Returns
        -------
        tuple[Tensor, Tensor or None]
            The latent vector (lin2, or the mean of lin21) and the logarithm of the standard deviation (lin22), both [n,
            n_z]. The second is None for CAE and AAE.
        """
        hidden = self.hidden(self.convolutions(image).flatten(1))
        return self.latent(hidden), None if self.log_sigma is None else self.log_sigma(hidden)


class Decoder(nn.Module):
    """Decoder from a latent vector to an image: lin3, lin4, deconv1 to deconvB, a sigmoid.

    The last layer's bias starts at the logit of the mean pixel. With a bias of zero, the sigmoid saturates on mostly
    black images in the first steps, and every output stays black.

    A decoder of features has no convolutions and no sigmoid: lin4 ends in the values of a place.

    With ``config.expects`` one more layer predicts the squared error of each pixel, a mean over channels (Nix and
    Weigend, 1994). Its gradient does not reach the shared layers. Otherwise it delays the reconstruction, with few
    images until the end of training.

    Parameters
    ----------
    config
        Layers of the network.
    mean_pixel
        float32 [channels], mean of each channel over the training images, 0 to 1.
    """

    def __init__(self, config: NetworkConfig, mean_pixel: Tensor) -> None:
        super().__init__()
        sizes = map_sizes(config)
        self.map_shape = ((config.filters or (config.channels,))[-1], *sizes[-1])
        self.hidden = nn.Sequential(nn.Linear(config.latent, config.hidden), nn.LeakyReLU())
        self.map = nn.Sequential(nn.Linear(config.hidden, math.prod(self.map_shape)))
        self.last = 0
        self.expectation: nn.Sequential | None = None
        self.convolutions = nn.Sequential()
        if config.filters:
            self.map.append(nn.LeakyReLU())
            self._add_convolutions(config, sizes, mean_pixel)
        else:
            _initialise(self)

    def _add_convolutions(self, config: NetworkConfig, sizes: list[tuple[int, int]], mean_pixel: Tensor) -> None:
        layers: list[nn.Module] = []
        outputs = (*config.filters[-2::-1], config.channels)
        inputs = config.filters[-1]
        for filters, stride, size, target in zip(
            outputs, config.strides[::-1], sizes[:0:-1], sizes[-2::-1], strict=True
        ):
            layers += [_mirrored(inputs, filters, stride, size, target), nn.LeakyReLU()]
            inputs = filters
        self.convolutions = nn.Sequential(*layers[:-1], nn.Sigmoid())
        _initialise(self)
        last = layers[-2]
        assert isinstance(last, nn.Conv2d | nn.ConvTranspose2d)
        assert last.bias is not None
        with torch.no_grad():
            last.bias.copy_(torch.logit(mean_pixel.clamp(0.01, 0.99)))
        self.last = len(layers) - 2
        if config.expects:
            with torch.random.fork_rng(devices=[]):  # the other layers start with the same weights as without it
                layer = _mirrored(config.filters[0], 1, config.strides[0], sizes[1], sizes[0])
                _initialise(layer)
            self.expectation = nn.Sequential(layer, nn.Sigmoid())

    def forward(self, latent: Tensor) -> Tensor:
        """Return the reconstruction.

        Parameters
        ----------
        latent
            float32 [n, n_z].

        Returns
        -------
        Tensor
            float32 [n, channels, height, width], 0 to 1.
        """
        return self._reconstruct(self._prepare(latent))

    def expect(self, latent: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the reconstruction and the logarithm of its predicted squared error.

        Parameters
        ----------
        latent
            float32 [n, n_z].

        Returns
        -------
        tuple[Tensor, Tensor or None]
            The reconstruction as in `forward`, and float32 [n, 1, height, width]. The second is None if the decoder
            does not predict its error.
        """
        if self.expectation is None:
            return self(latent), None
        features = self._prepare(latent)
        place = self.expectation(features.detach())
        return self._reconstruct(features), _LOWEST + (_HIGHEST - _LOWEST) * place

    def _prepare(self, latent: Tensor) -> Tensor:
        """Return the input of the last layer."""
        features: Tensor = self.convolutions[: self.last](self.map(self.hidden(latent)).unflatten(1, self.map_shape))
        return features

    def _reconstruct(self, features: Tensor) -> Tensor:
        reconstruction: Tensor = self.convolutions[self.last :](features)
        return reconstruction


class Critic(nn.Module):
    """Critic of the AAE: lind1, lind2 (Table 4, with Leaky ReLU after both as printed there)."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(config.latent, _CRITIC_HIDDEN), nn.LeakyReLU(), nn.Linear(_CRITIC_HIDDEN, 1), nn.LeakyReLU()
        )

    def forward(self, latent: Tensor) -> Tensor:
        """Return the Wasserstein score of latent vectors.

        Parameters
        ----------
        latent
            float32 [n, n_z].

        Returns
        -------
        Tensor
            Score of each vector, [n, 1]; high for vectors that look like draws from the prior.
        """
        score: Tensor = self.layers(latent)
        return score


def map_sizes(config: NetworkConfig) -> list[tuple[int, int]]:
    """Return the sizes of the feature maps before the first convolution and after each.

    Parameters
    ----------
    config
        Layers of the network.

    Returns
    -------
    list[tuple[int, int]]
        Height and width in pixels.
    """
    sizes = [(config.height, config.width)]
    for stride in config.strides:
        sizes.append((-(-sizes[-1][0] // stride), -(-sizes[-1][1] // stride)))
    return sizes


def count_parameters(*modules: nn.Module) -> int:
    """Return the number of weights of the modules.

    Parameters
    ----------
    modules
        The modules to count.

    Returns
    -------
    int
        Number of weights, 0 or more.
    """
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def _mirrored(
    inputs: int, outputs: int, stride: int, size: tuple[int, int], target: tuple[int, int]
) -> nn.Conv2d | nn.ConvTranspose2d:
    """Return the layer that reverses a convolution's stride; with stride 1 a convolution, which is faster."""
    if stride == 1:
        return nn.Conv2d(inputs, outputs, _KERNEL, padding=1)
    smallest = [(side - 1) * stride + 1 for side in size]
    padding = (target[0] - smallest[0], target[1] - smallest[1])
    return nn.ConvTranspose2d(inputs, outputs, _KERNEL, stride=stride, padding=1, output_padding=padding)


def _initialise(module: nn.Module) -> None:
    """Set He et al.'s normal weights; for a transposed convolution, count the inputs that reach an output.

    Torch's default weights are smaller. With them a deep stack passes on little of the image: it learns the mean
    part first and, with a few hundred images, nothing else.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            inputs = layer.weight[0].numel()
            if isinstance(layer, nn.ConvTranspose2d):
                inputs = layer.in_channels * _KERNEL**2 // layer.stride[0] ** 2
            nn.init.normal_(layer.weight, std=math.sqrt(2.0 / inputs))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
