"""What a training run is: every choice in one frozen record, and the networks that follow from an image's size."""

from __future__ import annotations

from dataclasses import dataclass

from onspect.runtime.errors import ChoiceError
from onspect.runtime.model.schema import Tiling

VARIANTS = ("cae", "vae", "aae")
OPTIMIZERS = ("adam", "adamw")
SCHEDULES = ("cosine", "constant")
AUGMENTATIONS = ("brightness", "shift", "rotate", "flip-horizontal", "flip-vertical")
PRESETS = ("paper", "fast", "balanced", "accurate")

SUBJECTS = ("pixels", "features")
"""What an autoencoder reconstructs."""

FEATURES = "features"
"""The preset of an autoencoder of features."""

PIXEL_BUDGET = {"fast": 128 * 128, "balanced": 256 * 256, "accurate": 384 * 384}
"""Most pixels of a preset's working size. Preset ``paper`` works at the images' own size."""
_FIRST_FILTERS = {"fast": 8, "balanced": 16, "accurate": 16}
_LATENT = {"fast": 32, "balanced": 64, "accurate": 64, FEATURES: 16}
_PLACE_HIDDEN = 64
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


def paper_applies(height: int, width: int, channels: int) -> bool:
    """Tell whether the paper has a network for this input: 28x28 mono (Table 1) or 32x32 colour (Table 2)."""
    return (height, width, channels) in ((28, 28, 1), (32, 32, 3))


def design_feature_network(variant: str, channels: int, latent: int | None = None) -> NetworkConfig:
    """Return the layers of an autoencoder of features: lin1 to lin4 of the paper's Table 3, for one place.

    channels: features of a place. latent overrides n_z. Applied to all places they are convolutions of 1 x 1.
    """
    return NetworkConfig(
        variant, 1, 1, channels, filters=(), strides=(), hidden=_PLACE_HIDDEN, latent=latent or _LATENT[FEATURES]
    )


def design_tiling(preset: str | None, height: int, width: int, tile: tuple[int, int]) -> Tiling:
    """Return the fewest tiles of (width, height) that cover a working size and overlap by at least an eighth of a tile.

    They are spread evenly, the first and last flush with the image's edges. A tile as wide as the image makes one
    column, one as high one row. Raises ChoiceError where the tile is larger than the image, as large, or too small for
    the networks, and for preset ``paper``.
    """
    words = f"--tile {tile[0]}x{tile[1]}"
    if preset == "paper":
        raise ChoiceError(
            f"{words} is not for preset paper, whose networks see whole images; "
            "choose --preset fast, balanced or accurate"
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
    """Return the layers for an input size: the paper's own for preset ``paper``, or a stack as deep as the size asks.

    The general stack halves the size until the shorter side is at most 8, doubles its filters up to four times the
    first, and ends with the paper's 16; r is five times n_z as in the paper. Its decoder says what error to expect.
    latent overrides n_z.

    Raises ChoiceError where the preset is ``paper`` and the paper has no network for the size, or the size is below 8.
    """
    if preset == "paper":
        if not paper_applies(height, width, channels):
            raise ChoiceError(
                f"the paper has networks for 28x28 mono and 32x32 colour images, not for {width}x{height} with "
                f"{channels} channel(s); choose --preset fast, balanced or accurate"
            )
        filters, strides = ((16, 32, 64, 64, 16), (1, 2, 2, 2, 1)) if channels == 1 else ((8, 16, 32, 16), (1, 2, 2, 1))
        return NetworkConfig(variant, height, width, channels, filters, strides, hidden=100, latent=latent or 20)
    if min(height, width) < _SMALLEST_MAP:
        raise ChoiceError(f"the working size {width}x{height} is too small; choose one of at least 8x8 with --size")
    stages = 0
    while min(height, width) / 2**stages > _SMALLEST_MAP:
        stages += 1
    stages = max(1, stages)
    first = _FIRST_FILTERS[preset]
    latent = latent or _LATENT[preset]
    filters = (*(first * 2 ** min(stage, 2) for stage in range(stages)), 16)
    return NetworkConfig(
        variant,
        height,
        width,
        channels,
        filters,
        strides=(*([2] * stages), 1),
        hidden=5 * latent,
        latent=latent,
        expects=True,
    )
