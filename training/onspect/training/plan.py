"""What a training run will do, in words: which size, tiles, objective and score were chosen, and why."""

from __future__ import annotations

import torch

from onspect.runtime.errors import ChoiceError
from onspect.training.checkpoint import RunRecord
from onspect.training.config import LONGEST_SIDE, TILE_STEP, design_tiling
from onspect.training.head import Head
from onspect.training.networks import Decoder, Encoder, count_parameters

_NOTED = 2.0  # times that images are shrunk, from which on a user is told
_OBJECTIVES = {
    "cae": "the paper's mean squared error (Eq. 2)",
    "vae": "the paper's squared error and divergence from the prior (Eq. 3)",
    "aae": "the paper's mean squared error (Eq. 2) and its critic of latent vectors (section 2.3)",
}


def describe(record: RunRecord) -> str:
    """Return in words what a run will do and what was decided for it."""
    config, network, recipe = record.config, record.config.network, record.data.recipe
    layers = " ".join(f"{f}/{s}" for f, s in zip(network.filters, network.strides, strict=True))
    parameters = count_parameters(Encoder(network), Decoder(network, torch.tensor(record.data.mean_pixel)))
    if config.head is None:
        head = "no head"
    else:
        size = count_parameters(Head(config.head, network.channels, (network.height, network.width)))
        further = f", and {config.head.alone:,} of the part that sees no reconstruction" if config.head.alone else ""
        head = (
            f"then a head with filters {' '.join(map(str, config.head.filters))}, {size:,} parameters, learns to find "
            f"synthetic defects: {config.head.steps:,} steps of batch {config.head.batch_size}{further}"
        )
    colour = "mono" if recipe.channels == 1 else "colour"
    looks = f"each image is cut into {config.tiling.describe()}\n" if config.tiling else _tell_of_closer_look(record)
    return (
        f"{network.variant.upper()} on {len(record.data.images)} good images ({len(record.data.held_out)} held out for "
        f"early stopping), preset {config.preset}\n"
        f"size {recipe.width}x{recipe.height} {colour}: {_tell_why_size(record)}\n"
        f"{looks}"
        f"objective {_OBJECTIVES[network.variant]}; encoder filters/stride {layers}, r {network.hidden}, n_z "
        f"{network.latent}, {parameters:,} parameters; {config.epochs} epochs of batch {config.batch_size}, "
        f"{config.optimizer} at {config.learning_rate:g} ({config.schedule}), augmentation "
        f"{', '.join(config.augment) or 'none'}, seed {config.seed}\n{head}\n{_tell_of_score(record)}"
    )


def _tell_why_size(record: RunRecord) -> str:
    """Return in words what the working size is to the images' own."""
    recipe, preset = record.data.recipe, record.config.preset
    source, size = recipe.source, (recipe.width, recipe.height)
    reduced = max(size) == LONGEST_SIDE.get(preset)
    most = f"the most that preset {preset} looks at" if reduced else "as was asked for"
    if source.width is None or source.height is None:
        return f"{most}, from images of any size" if reduced else most
    if source.width[0] != source.width[1] or source.height[0] != source.height[1]:
        return f"{most if reduced else 'one for all'}; images of different sizes are stretched to it"
    own = source.width[0], source.height[0]
    if own == size:
        return "the images' own"
    return f"{most}, of {own[0]}x{own[1]}" if reduced else most


def _tell_of_score(record: RunRecord) -> str:
    """Return in words how an image will be scored, and who chooses."""
    if record.config.head is None:
        error = (
            "its mean, as the paper has it"
            if record.config.preset == "paper"
            else "its peak, over what good parts show"
        )
        return f"score: the reconstruction error, {error}"
    return (
        "score: the head's highest place, or the reconstruction error's where `onspect export` finds that it tells "
        "synthetic defects on held-out images better"
    )


def _tell_of_closer_look(record: RunRecord) -> str:
    """Return in words what is lost where images are shrunk, and, where it is half or more, what would see it."""
    recipe, source = record.data.recipe, record.data.recipe.source
    if source.width is None or source.height is None:
        return ""
    sides = [high if low == high else high // 2 for low, high in (source.width, source.height)]  # as found, not allowed
    shrunk = max(sides[0] / recipe.width, sides[1] / recipe.height)
    if shrunk < _NOTED:
        lost = f"images are shrunk {shrunk:.1f} times in each direction" if shrunk > 1.0 else "every pixel is seen"
        return f"no tiles: {lost}\n"
    among = "" if source.width[0] == source.width[1] and source.height[0] == source.height[1] else "up to "
    words = (
        f"images ({among}{sides[0]}x{sides[1]}) are shrunk {shrunk:.1f} times in each direction; defects smaller than "
        f"about {round(shrunk)} pixels are lost"
    )
    width, height = (side // TILE_STEP * TILE_STEP for side in sides)
    tile = recipe.width // TILE_STEP * TILE_STEP, recipe.height // TILE_STEP * TILE_STEP
    try:
        count = design_tiling(record.config.preset, height, width, tile).count
    except ChoiceError:
        return f"{words}\n"
    closer = f"--size {width}x{height} --tile {tile[0]}x{tile[1]}"
    return f"{words}; {closer} looks closer, at {count} times the cost of an image\n"
