"""The presets of `onspect train`, one row each.

Commands, defaults and docs read `PRESETS`. A new preset is one more row. After a change, generate docs/commands.md
again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from onspect.runtime.errors import ChoiceError

PIXELS, FEATURES = "pixels", "features"
SUBJECTS = (PIXELS, FEATURES)
"""Data that an autoencoder can reconstruct."""


@dataclass(frozen=True)
class Layers:
    """Convolutions of the encoder for one input size; the decoder mirrors them."""

    filters: tuple[int, ...]
    """Filters of each convolution."""
    strides: tuple[int, ...]
    """Stride of each convolution."""


@dataclass(frozen=True)
class Preset:
    """Values of a training run for all choices that the user leaves open."""

    name: str
    """Name as `--preset` takes it."""
    latent: int
    """Size of the latent vector, n_z of the paper's Table 3."""
    batch_size: int
    """Images of a step, or places of images where features are reconstructed."""
    schedule: str
    """``cosine`` or ``constant``."""
    augment: tuple[str, ...]
    """Names from `onspect.training.config.AUGMENTATIONS`."""
    score: str
    """Score that the autoencoder has without a memory."""
    on: str = PIXELS
    """What is reconstructed: ``pixels`` or ``features``."""
    epochs: int = 0
    """Passes over the images; 0 if `steps` gives the length."""
    steps: int = 0
    """Steps of the optimizer over all epochs; 0 if `epochs` gives the length."""
    hidden: int | None = None
    """r of Table 3; None for five times n_z."""
    pixel_budget: int | None = None
    """Most pixels of the working size; None for a preset with `networks`, and for features."""
    first_filters: int = 0
    """Filters of the first convolution of a network that is designed for the size."""
    expects: bool = False
    """Whether the decoder also predicts the squared error of each pixel."""
    networks: Mapping[tuple[int, int, int], Layers] = field(default_factory=dict)
    """Networks for fixed sizes (height, width, channels); a preset that has some takes no other size and no tiles."""

    @property
    def is_fixed(self) -> bool:
        """Whether the preset has networks for fixed sizes alone."""
        return bool(self.networks)

    def describe(self) -> str:
        """Return a description of the preset, as the help of `--preset` shows it.

        Returns
        -------
        str
            One phrase.
        """
        if self.is_fixed:
            return f"{self.name}, for {self.describe_sizes()} images only"
        side = round((self.pixel_budget or 0) ** 0.5)
        return f"{self.name}, at most {side}x{side} pixels and {self.first_filters} filters in the first layer"

    def describe_sizes(self) -> str:
        """Return the fixed sizes as text, such as ``28x28 mono and 32x32 colour``.

        Returns
        -------
        str
            Sizes as WIDTHxHEIGHT; empty for a preset without fixed sizes.
        """
        return " and ".join(
            f"{width}x{height} {'mono' if channels == 1 else 'colour'}" for height, width, channels in self.networks
        )


_PAPER = {
    (28, 28, 1): Layers(filters=(16, 32, 64, 64, 16), strides=(1, 2, 2, 2, 1)),  # Table 1
    (32, 32, 3): Layers(filters=(8, 16, 32, 16), strides=(1, 2, 2, 1)),  # Table 2
}
_AUGMENT = ("brightness", "shift")

_ROWS = (
    Preset("paper", 20, 64, "constant", (), "mse", epochs=20, hidden=100, networks=_PAPER),
    Preset(
        *("fast", 32, 16, "cosine", _AUGMENT, "relative"),
        epochs=100,
        pixel_budget=128 * 128,
        first_filters=8,
        expects=True,
    ),
    Preset(
        *("balanced", 64, 16, "cosine", _AUGMENT, "relative"),
        epochs=100,
        pixel_budget=256 * 256,
        first_filters=16,
        expects=True,
    ),
    Preset(
        *("accurate", 64, 16, "cosine", _AUGMENT, "relative"),
        epochs=100,
        pixel_budget=384 * 384,
        first_filters=16,
        expects=True,
    ),
    Preset(FEATURES, 16, 1024, "cosine", (), FEATURES, on=FEATURES, steps=500, hidden=64),
)

PRESETS: Mapping[str, Preset] = MappingProxyType({row.name: row for row in _ROWS})
"""All presets by name, in the order of the help. `features` is not chosen by name: it comes with `--on features`."""

NAMES = tuple(row.name for row in _ROWS if row.on == PIXELS)
"""The presets that a user can choose by name."""

DEFAULT = "balanced"
"""The preset for sizes without a network of their own."""


def check_preset(name: str) -> Preset:
    """Return the preset of a name.

    Parameters
    ----------
    name
        One of `NAMES`.

    Returns
    -------
    Preset
        The preset.

    Raises
    ------
    ChoiceError
        If there is no preset of this name.
    """
    if name not in NAMES:
        raise ChoiceError(f"preset is {name!r}; choose one of {', '.join(NAMES)}")
    return PRESETS[name]


def choose_preset(sizes: Iterable[tuple[int, int]], channels: int) -> str:
    """Return the preset that has a network for exactly these sizes, otherwise the default preset.

    Parameters
    ----------
    sizes
        Height and width of the images, in pixels.
    channels
        1 or 3.

    Returns
    -------
    str
        Name of the preset.
    """
    wanted = {(*size, channels) for size in sizes}
    return next((row.name for row in _ROWS if row.is_fixed and wanted <= row.networks.keys()), DEFAULT)


def list_adaptable() -> str:
    """Return the names of the presets that take any size.

    Returns
    -------
    str
        Names, joined by commas and "or".
    """
    *most, last = (name for name in NAMES if not PRESETS[name].is_fixed)
    return f"{', '.join(most)} or {last}"


def describe_defaults(name: str) -> str:
    """Return the values that the presets have for a field, such as ``cosine; constant with preset paper``.

    Parameters
    ----------
    name
        Name of a field of `Preset`.

    Returns
    -------
    str
        The most frequent value first, then the exceptions. The row for features is left out.
    """
    values = {preset: _describe_value(getattr(PRESETS[preset], name)) for preset in NAMES}
    usual = Counter(values.values()).most_common(1)[0][0]
    others = [f"{values[preset]} with preset {preset}" for preset in values if values[preset] != usual]
    return "; ".join([usual, *others])


def _describe_value(value: object) -> str:
    return (",".join(value) or "none") if isinstance(value, tuple) else str(value)
