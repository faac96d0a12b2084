"""Configuration of a training run in one frozen record, and the networks that follow from the size of the images."""

from __future__ import annotations

import math
from dataclasses import dataclass

from onspect.runtime.errors import ChoiceError
from onspect.runtime.model.schema import Tiling
from onspect.training.presets import FEATURES, PRESETS, Layers, Preset, list_adaptable

VARIANTS = ("cae", "vae", "aae")
OPTIMIZERS = ("adam", "adamw")
SCHEDULES = ("cosine", "constant")
AUGMENTATIONS = ("brightness", "shift", "rotate", "flip-horizontal", "flip-vertical")

_SMALLEST_MAP = 8  # add strided stages until the encoder's map is this small
_SMALLEST_TILE = 32
_LEAST_OVERLAP = 8  # side of a tile, divided by its least overlap with the next tile


@dataclass(frozen=True)
class NetworkConfig:
    """Layers of encoder and decoder (paper, Tables 1 to 3)."""

    variant: str
    """``cae``, ``vae`` or ``aae``."""
    height: int
    """Height of the input in pixels: of an image, or of a tile."""
    width: int
    """Width of the input in pixels."""
    channels: int
    """Channels of the input: 1 or 3, or the number of features of a place."""
    filters: tuple[int, ...]
    """Filters of the encoder's 3x3 convolutions; the decoder mirrors them. Empty for features."""
    strides: tuple[int, ...]
    """Stride of each convolution, 1 or 2."""
    hidden: int
    """Size of the hidden linear layer, r of Table 3."""
    latent: int
    """Size of the latent vector, n_z of Table 3."""
    expects: bool = False
    """Whether the decoder also predicts the squared error of each pixel."""


@dataclass(frozen=True)
class TrainConfig:
    """Every choice of a training run. The same configuration, data and machine give the same weights on a CPU."""

    network: NetworkConfig
    """Layers of the networks."""
    preset: str
    """Name of the preset in `PRESETS`."""
    epochs: int
    """Passes over the training images, 1 or more."""
    batch_size: int
    """Images, tiles or places of a step over all devices together, 1 or more."""
    optimizer: str
    """``adam`` or ``adamw``."""
    learning_rate: float
    """Learning rate at the start, above 0."""
    schedule: str
    """``cosine`` or ``constant``."""
    augment: tuple[str, ...]
    """Names from `AUGMENTATIONS`."""
    holdout: float
    """Share of the good images that is kept for early stopping, 0 to 0.5."""
    patience: int
    """Epochs without a smaller held-out loss after which training stops; 0 for never."""
    seed: int
    """Seed of all random numbers."""
    kl_weight: float = 1.0
    """Factor of the KL term (Eq. 4), VAE only."""
    critic_steps: int = 5
    """Updates of the AAE's critic for each batch."""
    critic_clip: float = 0.01
    """Bound of the critic's weights: they are clipped to -critic_clip to critic_clip [1, 15]."""
    tiling: Tiling | None = None
    """Tiles that an image is cut into; None for whole images."""
    backbone: str = ""
    """Pretrained network whose features are reconstructed; empty for an autoencoder of pixels."""


def design_feature_network(variant: str, channels: int, latent: int | None = None) -> NetworkConfig:
    """Return the layers of an autoencoder of features: lin1 to lin4 of the paper's Table 3, for one place.

    Parameters
    ----------
    variant
        ``cae``, ``vae`` or ``aae``.
    channels
        Features of a place, 1 or more.
    latent
        Size of the latent vector; None for that of the preset.

    Returns
    -------
    NetworkConfig
        The layers. Applied to all places they are convolutions of 1 x 1.
    """
    return _connect(PRESETS[FEATURES], Layers((), ()), latent, variant=variant, height=1, width=1, channels=channels)


def design_tiling(preset: str | None, height: int, width: int, tile: tuple[int, int]) -> Tiling:
    """Return the fewest tiles that cover an image and overlap by at least an eighth of a tile.

    The tiles are evenly spaced. The first and the last end at the edges of the image.

    Parameters
    ----------
    preset
        Name of a preset, or None.
    height, width
        Working size in pixels.
    tile
        Width and height of a tile in pixels. A tile as wide as the image gives one column, one as high gives one row.

    Returns
    -------
    Tiling
        Size and positions of the tiles.

    Raises
    ------
    ChoiceError
        If the tile is not smaller than the image or is below 32 pixels, or if the preset has networks for fixed sizes.
    """
    words = f"--tile {tile[0]}x{tile[1]}"
    if preset is not None and PRESETS[preset].is_fixed:
        raise ChoiceError(
            f"{words} is not for preset {preset}, whose networks see whole images; choose --preset {list_adaptable()}"
        )
    if tile[0] > width or tile[1] > height:
        raise ChoiceError(
            f"{words} is larger than the working size {width}x{height}; give a smaller tile, or a larger --size"
        )
    if tile == (width, height):
        raise ChoiceError(
            f"{words} is the whole working size; give a larger --size, such as the images' own, or leave out --tile"
        )
    if min(tile) < _SMALLEST_TILE:
        raise ChoiceError(
            f"{words} is too small for the networks; give one of at least {_SMALLEST_TILE}x{_SMALLEST_TILE}"
        )
    lefts, tops = (_spread(side, whole) for side, whole in zip(tile, (width, height), strict=True))
    return Tiling(*tile, lefts, tops)


def _spread(side: int, whole: int) -> tuple[int, ...]:
    """Return the first pixel of each tile along one side of the image."""
    if side == whole:
        return (0,)
    room = whole - side
    gaps = -(-room // (side - -(-side // _LEAST_OVERLAP)))
    return tuple(index * room // gaps for index in range(gaps + 1))


def design_network(
    variant: str,
    preset: str,
    *,
    height: int,
    width: int,
    channels: int,
    latent: int | None = None,
) -> NetworkConfig:
    """Return the layers for an input size: the preset's own for this size, or a general stack.

    The general stack halves the size until the shorter side is at most 8. Its filters double up to four times the
    first, and the last layer has 16 as in the paper. r is five times n_z as in the paper.

    Parameters
    ----------
    variant
        ``cae``, ``vae`` or ``aae``.
    preset
        Name of a preset.
    height, width
        Size of the input in pixels, 8 or more.
    channels
        1 or 3.
    latent
        Size of the latent vector; None for that of the preset.

    Returns
    -------
    NetworkConfig
        The layers.

    Raises
    ------
    ChoiceError
        If the preset has networks for other sizes only, or the size is below 8.
    """
    row = PRESETS[preset]
    if row.is_fixed and (height, width, channels) not in row.networks:
        raise ChoiceError(
            f"preset {preset} has networks for {row.describe_sizes()} images, not for {width}x{height} with "
            f"{channels} channel(s); choose --preset {list_adaptable()}"
        )
    layers = row.networks.get((height, width, channels)) or _stack(row.first_filters, height, width)
    return _connect(row, layers, latent, variant=variant, height=height, width=width, channels=channels)


def _stack(first: int, height: int, width: int) -> Layers:
    """Return the convolutions of the general stack."""
    if min(height, width) < _SMALLEST_MAP:
        raise ChoiceError(f"the working size {width}x{height} is too small; choose one of at least 8x8 with --size")
    stages = max(1, math.ceil(math.log2(min(height, width) / _SMALLEST_MAP)))
    filters = (*(first * 2 ** min(stage, 2) for stage in range(stages)), 16)
    return Layers(filters, strides=(*([2] * stages), 1))


def _connect(
    row: Preset, layers: Layers, latent: int | None, *, variant: str, height: int, width: int, channels: int
) -> NetworkConfig:
    """Return a network with the linear layers of a preset between the convolutions."""
    latent = latent or row.latent
    return NetworkConfig(
        variant,
        height,
        width,
        channels,
        layers.filters,
        layers.strides,
        hidden=row.hidden or 5 * latent,
        latent=latent,
        expects=row.expects,
    )
