"""What a training run is: every choice in one frozen record, and the networks that follow from an image's size."""

from __future__ import annotations

from dataclasses import dataclass

from onspect.runtime.errors import ChoiceError
from onspect.runtime.model_file import Tiling

VARIANTS = ("cae", "vae", "aae")
OPTIMIZERS = ("adam", "adamw")
SCHEDULES = ("cosine", "constant")
AUGMENTATIONS = ("brightness", "shift", "rotate", "flip-horizontal", "flip-vertical")
PRESETS = ("paper", "fast", "balanced", "accurate")

LONGEST_SIDE = {"fast": 128, "balanced": 256, "accurate": 256}
"""Pixels that a preset shrinks an image's longer side to; the paper's works at the images' own size."""
_FIRST_FILTERS = {"fast": 8, "balanced": 16, "accurate": 16}
_LATENT = {"fast": 32, "balanced": 64, "accurate": 64}
_HEAD_STEPS = {"fast": 1500, "balanced": 4000, "accurate": 4000}
_ALONE = {"balanced": 1.0, "accurate": 4.0}  # for each step of the head, further ones of its second network
_SHARE = {"accurate": 0.3}  # of the other network, where it is not half: the more, the better verdicts and worse maps
_HEAD_FILTERS = {  # of the pair's network, of the single one, of their pyramids
    "fast": ((8, 16, 32, 48, 64), (8, 16, 24, 32, 48), 24),
    "balanced": ((16, 32, 64, 96, 128), (16, 32, 48, 64, 96), 48),
    "accurate": ((16, 32, 64, 96, 128), (16, 32, 48, 64, 96), 48),
}
_COARSEST_HEAD_MAP = 4
_FEWEST_STAGES = 3
_SMALLEST_CROPPED = 128
_SMALLEST_HALVED = 192  # below it the autoencoder's own error, which may be the score, loses too much
_SMALLEST_MAP = 8  # strided stages go on until the encoder's map is this small
_SMALLEST_TILE = _COARSEST_HEAD_MAP * 2**_FEWEST_STAGES  # below it there is no room for a head
_LEAST_OVERLAP = 8  # a tile's side over the least that it shares with its neighbour
TILE_STEP = 4
"""What tiles begin at multiples of, so that the head's maps, of a quarter of the resolution, lie place on place."""


@dataclass(frozen=True)
class NetworkConfig:
    """The layers of encoder and decoder (paper, Tables 1 to 3).

    height, width, channels: of the input, an image or a tile of it. filters, strides: of the encoder's 3x3
    convolutions, mirrored by the decoder. hidden: r, latent: n_z of Table 3. reduction: the image is averaged over
    squares of so many pixels before the first convolution, and the reconstruction is enlarged as often after the last.
    expects: the decoder also says what squared error to expect at each pixel.
    """

    variant: str
    height: int
    width: int
    channels: int
    filters: tuple[int, ...]
    strides: tuple[int, ...]
    hidden: int
    latent: int
    reduction: int = 1
    expects: bool = False


@dataclass(frozen=True)
class HeadConfig:
    """The discriminative head and its training on synthetic defects.

    filters: of the stem and of each stage after it, every one of which halves the size. width: of the feature pyramid.
    steps, batch_size, learning_rate: of its training; half of each batch carries defects. Three of four steps, on
    average, show four times as many pieces of half the side instead of whole images, where `crops`. single: filters of
    the second network, which sees the image without its reconstruction, averaged over squares of `reduction` pixels;
    none for no such network. alone: further steps in which it is trained by itself, while the other is finished.
    share: of the first in the mean of their log-odds.
    """

    filters: tuple[int, ...]
    width: int
    steps: int
    batch_size: int
    learning_rate: float
    crops: bool
    single: tuple[int, ...] = ()
    reduction: int = 1
    alone: int = 0
    share: float = 0.5


@dataclass(frozen=True)
class TrainConfig:
    """Every choice of a training run; the same config, data, seed and machine give the same weights on a CPU.

    batch_size: over all devices together. holdout: share of the good images kept for early stopping, 0 to 0.5.
    patience: epochs without a better held-out loss before training stops, 0 for never. kl_weight: factor of Eq. 4.
    critic_steps, critic_clip: the AAE critic's updates a batch, and the box its weights are clipped to [1, 15].
    head: None for the bare autoencoder. tiling: how images are cut into what the networks see, None for not at all.
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
    head: HeadConfig | None = None
    tiling: Tiling | None = None


def design_head(preset: str, height: int, width: int, steps: int | None = None) -> HeadConfig | None:
    """Return the head for a preset and a working size; None for preset ``paper`` or no steps.

    Stages are left out until the coarsest map is at least 4 high and wide. steps overrides the preset's.
    Raises ChoiceError where steps are asked for that the size has no room for.
    """
    wanted = _HEAD_STEPS.get(preset, 0) if steps is None else steps
    if wanted == 0:
        return None
    filters, single, pyramid = _HEAD_FILTERS.get(preset, _HEAD_FILTERS["fast"])
    stages = _count_stages(len(filters), min(height, width))
    if stages < _FEWEST_STAGES:
        if steps is None:
            return None
        least = _COARSEST_HEAD_MAP * 2**_FEWEST_STAGES
        raise ChoiceError(
            f"the working size {width}x{height} is too small for a head; give a --size of at least {least}x{least}, or "
            "--head-steps 0"
        )
    crops = min(height, width) >= _SMALLEST_CROPPED
    reduction = 2 if min(height, width) >= _SMALLEST_HALVED else 1
    fewer = _count_stages(len(single), min(height, width) / reduction)
    alone = round(_ALONE.get(preset, 0.0) * wanted)
    share = _SHARE.get(preset, HeadConfig.share)
    return HeadConfig(filters[:stages], pyramid, wanted, 8, 3e-3, crops, single[:fewer], reduction, alone, share)


def _count_stages(most: int, side: float) -> int:
    """Return how many times, up to the most, a side can be halved before the map is too small for more."""
    return next((stages for stages in range(most, 0, -1) if side / 2**stages >= _COARSEST_HEAD_MAP), 0)


def paper_applies(height: int, width: int, channels: int) -> bool:
    """Tell whether the paper has a network for this input: 28x28 mono (Table 1) or 32x32 colour (Table 2)."""
    return (height, width, channels) in ((28, 28, 1), (32, 32, 3))


def working_size(height: int, width: int, preset: str) -> tuple[int, int]:
    """Return the height and width to train at: the image's own, shrunk so that the longer side fits the preset."""
    longest = LONGEST_SIDE.get(preset)
    if longest is None or max(height, width) <= longest:
        return height, width
    scale = longest / max(height, width) / 2
    return max(1, 2 * round(height * scale)), max(1, 2 * round(width * scale))  # even, for a reduction by 2


def design_tiling(preset: str | None, height: int, width: int, tile: tuple[int, int]) -> Tiling:
    """Return the fewest tiles of (width, height) that cover a working size and overlap by at least an eighth of a tile.

    They are spread evenly, in steps of 4 pixels, the first and last flush with the image's edges. A tile as wide as the
    image makes one column, one as high one row. Raises ChoiceError where the tile is larger than the image, as large,
    or too small for the networks, where a side that is cut is no multiple of 4, and for preset ``paper``.
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
    if lefts is None or tops is None:
        raise ChoiceError(
            f"{words} does not go with the working size {width}x{height}: a side that is cut must be a multiple of "
            f"{TILE_STEP}, and the tile's too; give such a --size and --tile"
        )
    return Tiling(*tile, lefts, tops)


def _spread(side: int, whole: int) -> tuple[int, ...] | None:
    """Return where tiles begin along one side of the image; None where they could not lie on multiples of 4."""
    if side == whole:
        return (0,)
    if side % TILE_STEP or whole % TILE_STEP:
        return None
    room = (whole - side) // TILE_STEP  # in steps
    longest = (side - -(-side // _LEAST_OVERLAP)) // TILE_STEP
    gaps = -(-room // longest)
    return tuple(TILE_STEP * (index * room // gaps) for index in range(gaps + 1))


def design_network(
    variant: str,
    preset: str,
    *,
    height: int,
    width: int,
    channels: int,
    latent: int | None = None,
    has_head: bool = False,
) -> NetworkConfig:
    """Return the layers for an input size: the paper's own for preset ``paper``, or a stack as deep as the size asks.

    The general stack halves the size until the shorter side is at most 8, doubles its filters up to four times the
    first, and ends with the paper's 16; r is five times n_z as in the paper. Its decoder says what error to expect.
    latent overrides n_z. With a head, which sees the image itself, the autoencoder works at half the size where that is
    even and not too small.

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
    halves = has_head and height % 2 == width % 2 == 0 and min(height, width) >= _SMALLEST_HALVED
    reduction = 2 if halves else 1
    stages = 0
    while min(height, width) / reduction / 2**stages > _SMALLEST_MAP:
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
        reduction=reduction,
        expects=True,
    )
