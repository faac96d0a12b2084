"""Description of a training run before it starts: size, tiles, objective and score, with the reason for each."""

from __future__ import annotations

import torch

from onspect.runtime.errors import ChoiceError
from onspect.runtime.images.working_size import largest_stretch, working_size
from onspect.runtime.teaching.pictures import BUDGET, choose_working_size
from onspect.runtime.text import count_of
from onspect.training.autoencoder.networks import Decoder, Encoder, count_parameters
from onspect.training.checkpoint import RunRecord
from onspect.training.config import design_tiling
from onspect.training.presets import PRESETS

_NOTED = 2.0  # from this reduction in size on, the user gets a note
_NOTED_STRETCH = 1.005
_OBJECTIVES = {
    "cae": "the paper's mean squared error (Eq. 2)",
    "vae": "the paper's squared error and divergence from the prior (Eq. 3)",
    "aae": "the paper's mean squared error (Eq. 2) and its critic of latent vectors (section 2.3)",
}


def describe(record: RunRecord) -> str:
    """Return a description of a run and of the choices that were made for it.

    Parameters
    ----------
    record
        The run.

    Returns
    -------
    str
        Several lines of text.
    """
    config, network, data = record.config, record.config.network, record.data
    if config.backbone:
        subject, preset, tiles = f" of the features of {config.backbone}", "", ""
        layers = f", of {network.channels} components of the features at each place;"
        batch, augmentation = f"{config.batch_size} places", ""
    else:
        subject, preset = "", f", preset {config.preset}"
        tiles = _tell_of_tiles(record)
        pairs = zip(network.filters, network.strides, strict=True)
        layers = f"; encoder filters/stride {' '.join(f'{count}/{stride}' for count, stride in pairs)},"
        batch, augmentation = str(config.batch_size), f", augmentation {', '.join(config.augment) or 'none'}"
    parameters = count_parameters(Encoder(network), Decoder(network, torch.tensor(data.mean_pixel)))
    colour = "mono" if data.recipe.channels == 1 else "colour"
    return (
        f"{network.variant.upper()}{subject} on {len(data.images)} good images ({len(data.held_out)} held out for "
        f"early stopping){preset}\n"
        f"size {data.recipe.width}x{data.recipe.height} {colour}: {_tell_why_size(record)}\n"
        f"{tiles}"
        f"objective {_OBJECTIVES[network.variant]}{layers} r {network.hidden}, n_z {network.latent}, {parameters:,} "
        f"parameters; {count_of(config.epochs, 'epoch')} of batch {batch}, {config.optimizer} at "
        f"{config.learning_rate:g} ({config.schedule}){augmentation}, seed {config.seed}\n"
        f"score of the autoencoder: {PRESETS[config.preset].score} (see 'onspect export --help')"
    )


def _tell_why_size(record: RunRecord) -> str:
    """Describe how the working size was chosen."""
    preprocess, preset = record.data.recipe, record.config.preset
    source, size = preprocess.source, (preprocess.height, preprocess.width)
    if source.width is None or source.height is None:
        return "all images are resized to it"
    if source.width[0] != source.width[1] or source.height[0] != source.height[1]:
        return "images of different sizes are resized to it"
    own = source.height[0], source.width[0]
    if own == size:
        return "the images' own"
    stretch = largest_stretch([own], size)
    words = f"from {own[1]}x{own[0]}" + (f", stretched {stretch:.2f} times" if stretch >= _NOTED_STRETCH else "")
    if record.config.backbone and size == choose_working_size([own]):
        return f"{words}; an autoencoder of features takes at most {BUDGET:,} pixels"
    budget = PRESETS[preset].pixel_budget
    if budget is not None and size == working_size([own], budget):
        return f"{words}; preset {preset} takes at most {budget:,} pixels"
    return f"{words}; given by --size"


def _tell_of_tiles(record: RunRecord) -> str:
    """Return a note on the tiles; without tiles, on details lost by resizing and on tiles that would keep them."""
    if record.config.tiling is not None:
        return f"each image is cut into {record.config.tiling.describe()}\n"
    preprocess, source = record.data.recipe, record.data.recipe.source
    if source.width is None or source.height is None:
        return ""
    sides = [high if low == high else high // 2 for low, high in (source.width, source.height)]  # found, not accepted
    shrunk = max(sides[0] / preprocess.width, sides[1] / preprocess.height)
    if shrunk < _NOTED:
        lost = (
            f"images are shrunk only {shrunk:.1f} times in each direction" if shrunk > 1.0 else "images are not shrunk"
        )
        return f"no tiles: {lost}\n"
    among = "" if source.width[0] == source.width[1] and source.height[0] == source.height[1] else "up to "
    words = (
        f"images of {among}{sides[0]}x{sides[1]} are shrunk {shrunk:.1f} times in each direction; defects smaller than "
        f"about {shrunk:.0f} pixels are lost"
    )
    width, height = sides
    tile = preprocess.width, preprocess.height
    try:
        count = design_tiling(record.config.preset, height, width, tile).count
    except ChoiceError:
        return f"{words}\n"
    closer = f"--size {width}x{height} --tile {tile[0]}x{tile[1]}"
    return f"{words}; {closer} looks closer, at {count} times the cost of an image\n"
