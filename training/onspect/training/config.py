"""What a training run is: every choice in one frozen record, and the networks that follow from an image's size."""

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

_SMALLEST_MAP = 8  # strided stages go on until the encoder's map is this small
_SMALLEST_TILE = 32
_LEAST_OVERLAP = 8  # a tile's side over the least that it shares with its neighbour


@dataclass(frozen=True)
class NetworkConfig:
    """The layers of encoder and decoder (paper, Tables 1 to 3).

    height, width, channels: of the input, an image or a tile of it. filters, strides: of the encoder's 3x3
    convolutions, mirrored by the decoder. hidden: r, latent: n_z of Table 3. expects: the decoder also predicts the
    squared error of each pixel.
    """

    variant: str
    height: int
    width: int
    channels: int
    filters: tuple[int, ...]
    strides: tuple[int, ...]
    hidden: int
    latent: int
    expects: bool = False


@dataclass(frozen=True)
class TrainConfig:
    """Every choice of a training run; the same config, data, seed and machine give the same weights on a CPU.

    batch_size: over all devices together. holdout: share of the good images kept for early stopping, 0 to 0.5.
    patience: epochs without a better held-out loss before training stops, 0 for never. kl_weight: factor of Eq. 4.
    critic_steps, critic_clip: the AAE critic's updates a batch, and the box its weights are clipped to [1, 15].
    tiling: how images are cut into what the networks see, None for not at all. backbone: the pretrained network whose
    features are reconstructed, empty for an autoencoder of pixels; then batch_size counts places of images.
    """

    network: NetworkConfig
    preset: str
    epochs: int
    batch_size: int
    optimizer: str
    learning_rate: float
    schedule: str
    augment: tuple[str, ...]
    holdout: float
    patience: int
    seed: int
    kl_weight: float = 1.0
    critic_steps: int = 5
    critic_clip: float = 0.01
    tiling: Tiling | None = None
    backbone: str = ""


def design_feature_network(variant: str, channels: int, latent: int | None = None) -> NetworkConfig:
    """Return the layers of an autoencoder of features: lin1 to lin4 of the paper's Table 3, for one place.

    channels: features of a place. latent overrides n_z. Applied to all places they are convolutions of 1 x 1.
    """
    return _connect(PRESETS[FEATURES], Layers((), ()), latent, variant=variant, height=1, width=1, channels=channels)


def design_tiling(preset: str | None, height: int, width: int, tile: tuple[int, int]) -> Tiling:
    """Return the fewest tiles of (width, height) that cover a working size and overlap by at least an eighth of a tile.

    They are spread evenly, the first and last flush with the image's edges. A tile as wide as the image makes one
    column, one as high one row. Raises ChoiceError where the tile is larger than the image, as large, or too small for
    the networks, and for a preset with networks for fixed sizes.
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
    """Return the positions at which tiles begin along one side of the image."""
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
    """Return the layers for an input size: the preset's own for it, or a stack as deep as the size asks.

    The general stack halves the size until the shorter side is at most 8, doubles its filters up to four times the
    first, and ends with the paper's 16; r is five times n_z as in the paper. Its decoder says what error to expect.
    latent overrides n_z.

    Raises ChoiceError if the preset has networks for other sizes only, or the size is below 8.
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
