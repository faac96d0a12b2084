"""The scores of `onspect export`, one row each: how the score is computed, and which runs have it.

The commands `export` and `compare`, the graph, the checks and the model file read `SCORES`. A new score is one more
row. A score that is fitted to good images also needs a module in `onspect.export.fitted_scores`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

from onspect.runtime.errors import ChoiceError
from onspect.runtime.model.schema import Score
from onspect.training.config import VARIANTS, TrainConfig
from onspect.training.presets import FEATURES, PIXELS, PRESETS

MEMORY = "memory"
"""The score of a memory of good parts, and the default."""

_SMOOTHING = 1.0 / 64.0
_ROUNDING = 1.0 / 255.0**2 / 12.0  # the mean squared error of rounding to 8 bits


class Reduction(Enum):
    """How an image gets its score."""

    MEAN = "mean of the error map (Eq. 2)"
    MAXIMUM = "maximum of the error map"
    HIGHEST = "mean of the highest places of the features' error"
    NEAREST = "distance to a memory of good parts"
    FITTED = "fitted to good images, of the image as a whole"


@dataclass(frozen=True)
class ScoreSpec:
    """A score: its error map, its reduction and its requirements."""

    name: str
    """Name as `--score` takes it."""
    summary: str
    """Description for the help of `--score`."""
    reduction: Reduction
    """How an image gets its score."""
    smoothing: float = 0.0
    """Standard deviation of the Gaussian that smooths the error map, as a share of the longer side; 0 for none."""
    normal_floor: float | None = None
    """Least error of good parts by which the map is divided at each place; None if the map is not relative to them."""
    expects: bool = False
    """Whether the error is divided by the error that the decoder expects of this image."""
    variants: tuple[str, ...] = VARIANTS
    """Variants that have the score."""
    on: str = PIXELS
    """What the run's autoencoder reconstructs."""
    quantizes: bool = True
    """Whether a file with this score can be written in int8 and float16."""

    @property
    def is_relative(self) -> bool:
        """Whether the error map is a multiple of what good parts show at each place."""
        return self.normal_floor is not None

    @property
    def is_fitted(self) -> bool:
        """Whether the score judges the image as a whole; then there are no masks and no tiles."""
        return self.reduction is Reduction.FITTED

    @property
    def is_by_place(self) -> bool:
        """Whether an autoencoder of pixels judges each place, so that masks and tiles work."""
        return self.on == PIXELS and self.reduction not in (Reduction.FITTED, Reduction.NEAREST)

    @property
    def needs_images(self) -> bool:
        """Whether the images that a run was trained on are read again."""
        return self.reduction in (Reduction.FITTED, Reduction.NEAREST)

    @property
    def is_compared(self) -> bool:
        """Whether `onspect compare` has the score: every preset's autoencoder of pixels must be able to have it."""
        return self.on == PIXELS and not self.expects

    def describe(self) -> str:
        """Return the name with the summary, and the variants if only some have the score.

        Returns
        -------
        str
            One phrase.
        """
        only = "" if self.variants == VARIANTS else f" ({' and '.join(map(str.upper, self.variants))} only)"
        return f"{self.name}{only}: {self.summary}"

    def define(self, longer_side: int, inspected: float = 1.0) -> Score:
        """Return the definition of the score in a model file.

        Parameters
        ----------
        longer_side
            Longer side of the image or tile, in working pixels.
        inspected
            Share of the places that are inspected, above 0 to 1.

        Returns
        -------
        Score
            The definition.
        """
        maximum = self.reduction is Reduction.MAXIMUM
        return Score(self.name, longer_side * self.smoothing, inspected=inspected, maximum=maximum)

    def check(self, config: TrainConfig, *, masked: bool = False) -> None:
        """Check that a run has this score.

        Parameters
        ----------
        config
            Configuration of the run.
        masked
            Whether a mask is used.

        Raises
        ------
        ChoiceError
            If the run does not have the score, or the score does not work with the mask.
        """
        variant = config.network.variant
        if config.backbone and self.on != FEATURES:
            cure = "; make a memory with 'onspect teach'" if self.name == MEMORY else ""
            raise ChoiceError(
                f"score is {self.name!r}, and an autoencoder of features has the score {FEATURES} alone{cure}"
            )
        if self.on == FEATURES and not config.backbone:
            raise ChoiceError(f"score is {self.name!r}, which only a run of 'onspect train --on features' has")
        if self.on == FEATURES and masked:
            raise ChoiceError(
                "a mask is for autoencoders of pixels; leave it out where features are reconstructed, and give one "
                "rectangle as the region"
            )
        if variant not in self.variants:
            owners = " and ".join(map(str.upper, self.variants))
            raise ChoiceError(f"score is {self.name!r}, which only the {owners} has; this is a {variant.upper()}")
        if self.expects and not config.network.expects:
            having = " or ".join(row.name for row in PRESETS.values() if row.expects)
            raise ChoiceError(
                f"score is {self.name!r}, and the decoder of this run does not predict its error (preset "
                f"{config.preset}, or an older release); choose relative, or train again with preset {having}"
            )
        if self.is_fitted and masked:
            raise ChoiceError(
                f"score is {self.name!r}, which judges the image as a whole and cannot leave places out; with a mask, "
                f"or a region of other shapes than one rectangle, choose {_list_by_place()}"
            )
        if self.is_fitted and config.tiling is not None:
            raise ChoiceError(
                f"score is {self.name!r}, which judges the image as a whole, and this run's networks see tiles of it; "
                f"choose {_list_by_place()}, or train without --tile"
            )


_ROWS = (
    ScoreSpec(
        MEMORY, "distance to a memory of the good images, in features of a pretrained network", Reduction.NEAREST
    ),
    ScoreSpec("mse", "mean squared error of the reconstruction", Reduction.MEAN),
    ScoreSpec("peak", "maximum of the smoothed error map", Reduction.MAXIMUM, _SMOOTHING),
    ScoreSpec(
        "relative",
        "as peak, each place divided by the error of good parts there",
        Reduction.MAXIMUM,
        _SMOOTHING,
        normal_floor=_ROUNDING,
    ),
    ScoreSpec(
        "expected",
        "as relative, with the error divided by the error that the decoder predicts for this image",
        Reduction.MAXIMUM,
        _SMOOTHING,
        normal_floor=0.1,  # an error far below the prediction everywhere is not evidence
        expects=True,
    ),
    ScoreSpec(FEATURES, "the highest places of the reconstruction error of features", Reduction.HIGHEST, on=FEATURES),
    ScoreSpec("whitened", "Gaussian distance of the residual from residuals of good images", Reduction.FITTED),
    ScoreSpec("normalised", "mean squared error over the image's complexity", Reduction.FITTED),
    ScoreSpec("latent", "Gaussian distance of the latent vector", Reduction.FITTED),
    ScoreSpec("contrast", "as whitened, of the residual over the image's contrast", Reduction.FITTED),
    ScoreSpec("statistics", "Gaussian distance of statistics of image and residual", Reduction.FITTED),
    ScoreSpec("probability", "minus the reconstruction probability", Reduction.FITTED, variants=("vae",)),
    ScoreSpec("kl", "divergence of the latent vector from the prior (Eq. 4)", Reduction.FITTED, variants=("vae",)),
    ScoreSpec(
        "critic",
        "how unlikely the critic finds the latent vector as a draw from the prior",
        Reduction.FITTED,
        variants=("aae",),
    ),
    ScoreSpec("combined", "normalised, latent, contrast and statistics together", Reduction.FITTED),
)

SCORES: Mapping[str, ScoreSpec] = MappingProxyType({row.name: row for row in _ROWS})
"""All scores by name, in the order of the help."""


def find_score(name: str) -> ScoreSpec:
    """Return the score of a name.

    Parameters
    ----------
    name
        A name in `SCORES`.

    Returns
    -------
    ScoreSpec
        The score.

    Raises
    ------
    ChoiceError
        If there is no score of this name.
    """
    if name not in SCORES:
        raise ChoiceError(f"score is {name!r}; choose one of {', '.join(SCORES)}")
    return SCORES[name]


def own_score(config: TrainConfig) -> ScoreSpec:
    """Return the score of a run's autoencoder, which depends on the preset.

    Parameters
    ----------
    config
        Configuration of the run.

    Returns
    -------
    ScoreSpec
        The score.
    """
    return SCORES[PRESETS[config.preset].score]


def choose_score(name: str | None, config: TrainConfig) -> ScoreSpec:
    """Return the score that a file gets.

    Parameters
    ----------
    name
        A name in `SCORES`; None for ``memory``, or ``features`` for a run on features.
    config
        Configuration of the run.

    Returns
    -------
    ScoreSpec
        The score.

    Raises
    ------
    ChoiceError
        If there is no score of this name.
    """
    if name is not None:
        return find_score(name)
    return own_score(config) if config.backbone else SCORES[MEMORY]


def describe_scores() -> str:
    """Return a description of each score, for the help of `--score`.

    Returns
    -------
    str
        One paragraph.
    """
    fitted = ", ".join(row.name for row in _ROWS if row.is_fitted)
    return (
        f"{'; '.join(row.describe() for row in _ROWS)}. Fitted to the training images: {fitted}; see docs/scores.md "
        f"[default: {MEMORY}; {FEATURES} for a run on features, which has no other]."
    )


def _list_by_place() -> str:
    """Return the names of the autoencoder's scores that judge each place separately."""
    *most, last = (row.name for row in _ROWS if row.is_by_place)
    return f"{', '.join(most)} or {last}"
