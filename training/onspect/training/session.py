"""A training run from a folder of images to a folder with weights; the Python face of ``onspect train``."""

from __future__ import annotations

import importlib.metadata
import logging
import math
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from numpy.typing import NDArray

from onspect.runtime.atomic import make_folder, new_folder, write_atomically
from onspect.runtime.dataset.crop import Crop
from onspect.runtime.dataset.near_duplicates import learn_near_duplicates
from onspect.runtime.errors import ChoiceError, TrainingError
from onspect.runtime.images.quality import span
from onspect.runtime.images.region import RegionFile
from onspect.runtime.images.working_size import MULTIPLE
from onspect.runtime.inspection.verdict import now
from onspect.runtime.inspection.visualization import write_png
from onspect.runtime.progress import Progress, no_progress
from onspect.training.autoencoder.loop import Outcome, TrainingProgress, fit
from onspect.training.autoencoder.networks import Decoder, Encoder
from onspect.training.checkpoint import (
    CHECKPOINT,
    CONFIG,
    EXTRACTOR,
    SAMPLES,
    WEIGHTS,
    DataRecord,
    RunRecord,
    read_extractor,
    read_record,
    write_record,
    write_tensors,
)
from onspect.training.config import (
    AUGMENTATIONS,
    OPTIMIZERS,
    SCHEDULES,
    VARIANTS,
    TrainConfig,
    design_feature_network,
    design_network,
    design_tiling,
)
from onspect.training.datasets import TrainingSet, load_training_set
from onspect.training.features import DEFAULT_BACKBONE, make_base
from onspect.training.features.places import PlaceExtractor, flatten_places, make_extractor
from onspect.training.launcher import is_member
from onspect.training.presets import FEATURES, PRESETS, SUBJECTS, check_preset
from onspect.training.previews import draw_feature_preview, draw_preview
from onspect.training.tiles import Images, Tiles

_LOG = logging.getLogger("onspect")

_SAMPLES = 256
_FEWEST_EPOCHS = 5
_FEWEST_SAMPLES = 64  # for images with many tiles, so that export takes minutes and not an hour
_PREVIEWED = 6
_PREVIEWS = 10  # number of pictures in RUN/previews for a whole run
_SPLIT = 4  # number of the random stream under the run's seed; the loop has others


@dataclass(frozen=True)
class TrainOptions:
    """Options of a training run. With None, the images and the preset decide."""

    variant: str = "cae"
    """``cae``, ``vae`` or ``aae``."""
    on: str = "pixels"
    """What is reconstructed: ``pixels`` or ``features``."""
    preset: str | None = None
    """``paper``, ``fast``, ``balanced`` or ``accurate``."""
    size: tuple[int, int] | None = None
    """Working size: width and height in pixels."""
    tile: tuple[int, int] | None = None
    """Width and height of a tile in pixels; None for whole images."""
    channels: int | None = None
    """1 or 3; None takes 1 if every image is grey."""
    white_level: int = 65535
    """Value of 16-bit images that is white, 1 to 65535."""
    any_size: bool = False
    """Whether the model accepts frames of any size later."""
    latent: int | None = None
    """Size of the latent vector (n_z of Table 3), 1 or more."""
    epochs: int | None = None
    """Passes over the images, 1 or more."""
    batch_size: int | None = None
    """Images, tiles or places of a step, 1 or more."""
    optimizer: str = "adam"
    """``adam`` or ``adamw``."""
    learning_rate: float = 1e-3
    """Learning rate at the start, above 0."""
    schedule: str | None = None
    """``cosine`` or ``constant``."""
    augment: tuple[str, ...] | None = None
    """Names from `onspect.training.config.AUGMENTATIONS`."""
    holdout: float = 0.1
    """Share of the good images that is kept for early stopping, 0 to 0.5."""
    patience: int = 20
    """Epochs without a smaller held-out loss after which training stops; 0 for never."""
    seed: int = 0
    """Seed of all random numbers."""
    region: RegionFile | None = None
    """Region that images are cropped to, with the alignment that finds the part. Its painted mask takes effect at
    export.
    """


@dataclass(frozen=True)
class Devices:
    """Devices to train on, in the terms of lightning-fabric."""

    accelerator: str = "auto"
    """``auto``, ``cpu`` or ``cuda``."""
    devices: int = 1
    """Number of devices, 1 or more."""
    precision: str = "32-true"
    """``32-true``, ``16-mixed`` or ``bf16-mixed``."""


@dataclass(frozen=True)
class Callbacks:
    """Functions that training calls to report its progress. None for no report."""

    reading: Progress | None = None
    """Wraps the reading of images, for a progress bar."""
    planned: Callable[[RunRecord], None] | None = None
    """Called once with the configuration, before the first step."""
    step: Callable[[TrainingProgress], None] | None = None
    """Called after every step."""


def train(
    folder: str | Path | TrainingSet,
    run: str | Path,
    options: TrainOptions | None = None,
    *,
    devices: Devices | None = None,
    callbacks: Callbacks | None = None,
) -> Outcome:
    """Train on the good images of a dataset folder, and write a run.

    A run is a folder with weights, configuration, checkpoint, log and preview pictures. After a failure before the
    first checkpoint, there is no run.

    Parameters
    ----------
    folder
        The dataset folder; its ``train/good`` has the images. Or images that were read already; the options for
        reading then have no effect.
    run
        Folder to write; it may not contain a run.
    options
        Options; None for the defaults.
    devices
        Devices and precision; None for one device, chosen automatically.
    callbacks
        Progress functions; None for none.

    Returns
    -------
    Outcome
        Why training ended, and the best epoch.

    Raises
    ------
    DatasetError
        If the images cannot be used.
    ChoiceError
        If an option is not valid.
    TrainingError
        If the run exists already, the devices are not available, or the loss is not finite.
    OutputError
        If the run cannot be written.
    """
    run = Path(run)
    options, callbacks = options or TrainOptions(), callbacks or Callbacks()
    if (run / CHECKPOINT).exists() or (run / WEIGHTS).exists():
        raise TrainingError(
            f"{str(run)!r} already contains a training run: continue it with 'onspect train --resume -o {run}', or "
            "give another folder"
        )
    _check_options(options)
    if options.tile is not None and options.size is not None:  # checked before minutes of reading images
        design_tiling(options.preset, options.size[1], options.size[0], options.tile)
    fabric = _start_fabric(devices or Devices())
    if isinstance(folder, TrainingSet):
        return _begin(folder, run, options, fabric, callbacks)
    data = load_training_set(
        Path(folder),
        preset=FEATURES if options.on == FEATURES else options.preset,
        size=options.size,
        channels=options.channels,
        white_level=options.white_level,
        any_size=options.any_size,
        region=options.region,
        progress=callbacks.reading if fabric.is_global_zero else None,
    )
    return _begin(data, run, options, fabric, callbacks)


def _begin(data: TrainingSet, run: Path, options: TrainOptions, fabric: Fabric, callbacks: Callbacks) -> Outcome:
    kept, held_out = _split(data, options)
    images = data.images[kept]
    extractor = None
    if options.on == FEATURES:
        _check_feature_size(images.shape[2], images.shape[1])
        extractor = make_extractor(make_base(), images, seed=options.seed)
    config = _decide(data, images, options, extractor)
    record = RunRecord(
        config=config,
        data=DataRecord(
            folder=str(data.folder.absolute()),
            recipe=data.preprocess,
            images=tuple(data.fingerprints[index] for index in kept),
            held_out=tuple(data.fingerprints[index] for index in held_out),
            mean_pixel=tuple(float(value) / 255.0 for value in images.mean(axis=(0, 1, 2), dtype=np.float64)),
            appearance=span(data.images),
            looks=learn_near_duplicates(images, [data.fingerprints[index] for index in kept]),
        ),
        versions={name: importlib.metadata.version(name) for name in ("onspect", "torch")},
        started=now(),
    )
    _check_shares(record, fabric)
    with ExitStack() as stack:
        if fabric.is_global_zero:
            stack.enter_context(new_folder(run, keep=(run / CHECKPOINT).exists))
            samples = _samples(images, data.images[held_out], config)
            write_tensors(run / SAMPLES, {"images": torch.from_numpy(samples)})
            if extractor is not None:
                write_atomically(run / EXTRACTOR, extractor)
            write_record(run, record)
        fabric.barrier()
        return _fit(record, images, data.images[held_out], run, fabric, callbacks, resume=False)


def resume(
    run: str | Path,
    data: TrainingSet | None = None,
    *,
    devices: Devices | None = None,
    callbacks: Callbacks | None = None,
) -> Outcome:
    """Continue an interrupted run.

    On the same machine, the weights equal those of an uninterrupted run.

    Parameters
    ----------
    run
        Folder of the run.
    data
        The images that the run began with; None to read them again from where they were.
    devices
        Devices and precision; None for one device, chosen automatically.
    callbacks
        Progress functions; None for none.

    Returns
    -------
    Outcome
        Why training ended, and the best epoch.

    Raises
    ------
    TrainingError
        If the folder has no checkpoint, or its images have changed.
    DatasetError
        If an image cannot be used.
    OutputError
        If the run cannot be written.
    """
    run = Path(run)
    record = read_record(run)
    callbacks = callbacks or Callbacks()
    fabric = _start_fabric(devices or Devices())
    data = data or read_training_set(run, record, callbacks.reading if fabric.is_global_zero else None)
    images, held_out = split_as_recorded(data, run, record)
    _check_shares(record, fabric)
    return _fit(record, images, held_out, run, fabric, callbacks, resume=True)


def read_training_set(run: Path, record: RunRecord, progress: Progress | None = None) -> TrainingSet:
    """Read the images that a run began with, with the run's own preprocessing.

    Parameters
    ----------
    run
        Folder of the run, for messages.
    record
        Content of its config.json.
    progress
        Wraps the reading, for a progress bar.

    Returns
    -------
    TrainingSet
        All good images of the folder.

    Raises
    ------
    TrainingError
        If the folder is gone.
    DatasetError
        If an image cannot be used.
    """
    if not Path(record.data.folder).is_dir():
        raise TrainingError(
            f"the folder {record.data.folder!r} that the run {str(run)!r} began with is gone; put it back, or write "
            f"its new place into {str(run / CONFIG)!r}"
        )
    preprocess = record.data.recipe
    return load_training_set(
        Path(record.data.folder),
        preset=record.config.preset,
        size=(preprocess.width, preprocess.height),
        channels=preprocess.channels,
        white_level=preprocess.white_level,
        any_size=preprocess.source.width is None,
        crop=Crop.of(preprocess),
        progress=progress,
    )


def split_as_recorded(data: TrainingSet, run: Path, record: RunRecord) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the images that a run trains on, and those that it holds out.

    Parameters
    ----------
    data
        All good images of the folder.
    run
        Folder of the run, for messages.
    record
        Content of its config.json.

    Returns
    -------
    tuple[NDArray[np.uint8], NDArray[np.uint8]]
        Both [n, height, width, channels].

    Raises
    ------
    TrainingError
        If some of the images are not in `data`.
    """
    where = {fingerprint: index for index, fingerprint in enumerate(data.fingerprints)}
    missing = [name for name in (*record.data.images, *record.data.held_out) if name not in where]
    if missing:
        raise TrainingError(
            f"{len(missing)} of the images that the run {str(run)!r} began with are no longer in "
            f"{record.data.folder!r}; put them back, or train again into another folder"
        )
    images = data.images[[where[name] for name in record.data.images]]
    return images, data.images[[where[name] for name in record.data.held_out]]


def _fit(
    record: RunRecord,
    images: NDArray[np.uint8],
    held_out: NDArray[np.uint8],
    run: Path,
    fabric: Fabric,
    callbacks: Callbacks,
    *,
    resume: bool,
) -> Outcome:
    if callbacks.planned is not None and fabric.is_global_zero:
        callbacks.planned(record)
    tiling = record.config.tiling
    shown = (held_out if len(held_out) else images)[:_PREVIEWED]
    every = max(1, record.config.epochs // _PREVIEWS)

    graph = read_extractor(run, record)
    extractor = None if graph is None else PlaceExtractor.open(graph)

    def preview(epoch: int, encoder: Encoder, decoder: Decoder) -> None:
        if epoch == 1 or epoch % every == 0 or epoch == record.config.epochs:
            if extractor is None:
                picture = draw_preview(shown, encoder, decoder, tiling)
            else:
                picture = draw_feature_preview(shown, extractor.extract(shown), encoder, decoder)
            write_png(make_folder(run / "previews") / f"epoch-{epoch:04d}.png", picture)
            write_png(run / "preview.png", picture)

    seen: tuple[Images, Images] = (images, held_out)
    if tiling is not None:
        seen = Tiles(images, tiling), Tiles(held_out, tiling)
    elif extractor is not None:
        reading = callbacks.reading if fabric.is_global_zero else None
        seen = _find_places(extractor, images, reading), _find_places(extractor, held_out, None)
    return fit(record, *seen, run, fabric, resume=resume, watch=callbacks.step, after_epoch=preview)


def _find_places(
    extractor: PlaceExtractor, images: NDArray[np.uint8], progress: Progress | None
) -> NDArray[np.float16]:
    """Return all places of images, in order. One image at a time limits the memory for float32 features."""
    items = (progress or no_progress)(images, len(images), "extracting features")
    found = [flatten_places(extractor.extract(image[None])) for image in items]
    return np.concatenate(found) if found else np.zeros((0, 1, 1, 1), np.float16)


def _check_options(options: TrainOptions) -> None:
    choices = [
        ("variant", options.variant, VARIANTS),
        ("on", options.on, SUBJECTS),
        ("optimizer", options.optimizer, OPTIMIZERS),
        ("schedule", options.schedule or SCHEDULES[0], SCHEDULES),
        *(("augment", name, AUGMENTATIONS) for name in options.augment or ()),
    ]
    for name, value, allowed in choices:
        if value not in allowed:
            raise ChoiceError(f"{name} is {value!r}; choose from {', '.join(allowed)}")
    if not 0.0 <= options.holdout <= 0.5:
        raise ChoiceError(f"holdout is {options.holdout}; give a share from 0 to 0.5")
    if options.learning_rate <= 0.0:
        raise ChoiceError(f"learning_rate is {options.learning_rate}; give a number above 0")
    for name, number in (("epochs", options.epochs), ("batch_size", options.batch_size), ("latent", options.latent)):
        if number is not None and number < 1:
            raise ChoiceError(f"{name} is {number}; give 1 or more")
    if options.on == FEATURES:
        _check_feature_options(options)
    elif options.preset == FEATURES:
        raise ChoiceError("preset 'features' cannot be chosen by name; use --on features instead")
    elif options.preset is not None:
        check_preset(options.preset)


def _check_feature_options(options: TrainOptions) -> None:
    for name, value in (("preset", options.preset), ("tile", options.tile), ("augment", options.augment)):
        if value:
            raise ChoiceError(f"{name} is for autoencoders of pixels; leave it out where features are reconstructed")
    if options.size is not None:
        _check_feature_size(*options.size)


def _check_feature_size(width: int, height: int) -> None:
    if width % MULTIPLE or height % MULTIPLE:
        fitting = [max(MULTIPLE, round(side / MULTIPLE) * MULTIPLE) for side in (width, height)]
        raise ChoiceError(
            f"the working size is {width}x{height}, and features need multiples of {MULTIPLE} pixels; give "
            f"--size {fitting[0]}x{fitting[1]}"
        )


def _split(data: TrainingSet, options: TrainOptions) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the indices of training and held-out images; copies of one image are on the same side."""
    unique = sorted(set(data.fingerprints))
    count = round(len(unique) * options.holdout)
    order = np.random.default_rng([options.seed, _SPLIT]).permutation(len(unique))
    held = {unique[index] for index in order[:count]}
    mask = np.array([fingerprint in held for fingerprint in data.fingerprints])
    return np.flatnonzero(~mask), np.flatnonzero(mask)


def _decide(
    data: TrainingSet, images: NDArray[np.uint8], options: TrainOptions, extractor: bytes | None
) -> TrainConfig:
    """Return the run's configuration; the number of its images decides the number of epochs and the batch size."""
    row, tiling, backbone = PRESETS[data.preset], None, ""
    examples, height, width, depth = images.shape
    if extractor is not None:
        row, backbone = PRESETS[FEATURES], DEFAULT_BACKBONE
        _, depth, rows, columns = PlaceExtractor.open(extractor).extract(images[:1]).shape
        examples *= rows * columns
        network = design_feature_network(options.variant, depth, options.latent)
    else:
        if options.tile is not None:
            tiling = design_tiling(row.name, height, width, options.tile)
            examples, height, width = examples * tiling.count, tiling.height, tiling.width
        size = {"height": height, "width": width, "channels": depth}
        network = design_network(options.variant, row.name, **size, latent=options.latent)
    batch = min(examples, options.batch_size or row.batch_size)
    epochs = row.epochs or max(1, round(row.steps / math.ceil(examples / batch)))
    if tiling is not None:  # an epoch has all tiles: fewer epochs give as many steps as without tiles
        epochs = max(_FEWEST_EPOCHS, round(epochs / tiling.count))
    return TrainConfig(
        network=network,
        preset=row.name,
        epochs=options.epochs or epochs,
        batch_size=batch,
        optimizer=options.optimizer,
        learning_rate=options.learning_rate,
        schedule=options.schedule or row.schedule,
        augment=row.augment if options.augment is None else options.augment,
        holdout=options.holdout,
        patience=options.patience,
        seed=options.seed,
        tiling=tiling,
        backbone=backbone,
    )


def _samples(images: NDArray[np.uint8], held_out: NDArray[np.uint8], config: TrainConfig) -> NDArray[np.uint8]:
    count = _SAMPLES if config.tiling is None else max(_FEWEST_SAMPLES, _SAMPLES // config.tiling.count)
    return np.concatenate([held_out[:count], images[:count]])[:count]


def _start_fabric(devices: Devices) -> Fabric:
    """Start the devices; with several, `train_together` or torchrun has started this process.

    In a user's script, lightning-fabric starts the script again for each device.
    """
    cv2.setNumThreads(1)
    if devices.accelerator == "cuda" and not torch.cuda.is_available():
        raise TrainingError("--device cuda: torch finds no GPU; use --device cpu, or install torch with CUDA")
    if devices.precision == "16-mixed" and (devices.accelerator == "cpu" or not torch.cuda.is_available()):
        raise TrainingError("--precision 16-mixed needs a GPU; use --precision bf16-mixed, which also runs on a CPU")
    if devices.accelerator != "cpu" and 0 < torch.cuda.device_count() < devices.devices:
        raise TrainingError(
            f"--devices {devices.devices}: torch finds {torch.cuda.device_count()} GPUs here; give fewer"
        )
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    # with one channel the strides of a gradient have no meaning; torch calls the warning harmless
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    fabric = Fabric(
        accelerator=devices.accelerator,
        devices=devices.devices,
        precision=devices.precision,  # type: ignore[arg-type]  # one of click's choices
        plugins=[LightningEnvironment()] if is_member() else [],  # ignore other launchers such as Slurm
    )
    fabric.launch()
    if not fabric.is_global_zero:
        _LOG.setLevel(logging.CRITICAL)  # all processes read the same images and would repeat the warnings
    return fabric


def _check_shares(record: RunRecord, fabric: Fabric) -> None:
    """Raise TrainingError if there are more devices than images in a batch."""
    images = record.config.batch_size
    if fabric.world_size > images:
        raise TrainingError(
            f"--devices {fabric.world_size} is more than the {images} images of a batch; use fewer devices, or a "
            f"larger --batch-size"
        )
