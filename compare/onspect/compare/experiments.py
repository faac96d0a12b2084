"""One experiment of a comparison: a variant trained on the normal classes with one seed, exported and measured.

Each has its own folder, and every file in it is written completely or not at all. A comparison that continues makes
only the missing files.
"""

from __future__ import annotations

import io
import json
import logging
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from onspect.compare.datasets import Dataset
from onspect.export.onnx_writer import export_scores
from onspect.runtime.atomic import describe_os_error, write_atomically
from onspect.runtime.errors import DatasetError, OnspectError
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.records import parse_dataclass
from onspect.training.checkpoint import CHECKPOINT, WEIGHTS
from onspect.training.datasets import TrainingSet
from onspect.training.session import Devices, TrainOptions, resume, train

_BATCH = 64
_TRAINED = "trained.json"
RUNS = "runs"
"""Folder of the experiments within that of a comparison."""
_HOLDOUT = 0.1  # share of the normal images that chooses the best epoch


@dataclass(frozen=True)
class Experiment:
    """A training run of a comparison."""

    normal: tuple[str, ...]
    """Classes that the run is trained on."""
    variant: str
    """``cae``, ``vae`` or ``aae``."""
    seed: int
    """Seed of the run."""
    scores: tuple[str, ...] = ()
    """Scores that are measured."""

    @property
    def folder(self) -> Path:
        """The run's folder within the comparison's."""
        return Path(RUNS, describe_normal(self.normal), f"{self.variant}-{self.seed}")

    def identify(self) -> dict[str, Any]:
        """Return the fields that distinguish the experiment, for the files of a comparison.

        Returns
        -------
        dict[str, Any]
            The keys ``normal``, ``variant`` and ``seed``.
        """
        return {"normal": self.normal, "variant": self.variant, "seed": self.seed}

    def __str__(self) -> str:
        return f"{self.variant}, normal {' and '.join(self.normal)}, seed {self.seed}"


@dataclass(frozen=True)
class Settings:
    """Settings that all experiments of a comparison share. A comparison with other settings needs another folder."""

    name: str
    """Name of the dataset."""
    data: str
    """Fingerprint of the dataset."""
    preset: str
    """Name of the preset."""
    epochs: int | None
    """Passes over the images; None for as many as the preset has."""
    limit: int | None
    """Largest number of images of each class; None for all."""


@dataclass(frozen=True)
class Trained:
    """Result of an experiment's training."""

    epochs: int
    """Number of complete epochs."""
    best_epoch: int
    """Epoch whose weights are kept, from 1."""
    held_out_error: float
    """Mean squared error of the held-out images at that epoch."""
    images: int
    """Number of training images."""
    seconds: float
    """Duration in seconds, over all sessions."""
    cpu_seconds: float | None
    """Processor time in seconds; None if training was interrupted."""
    threads: int
    """Number of threads of the training."""
    jobs: int
    """Largest number of experiments that trained at the same time."""


class InterruptedExperimentError(OnspectError):
    """An experiment was interrupted, and its training was saved."""


def describe_normal(normal: Sequence[str]) -> str:
    """Return the normal classes as one name that is valid for folders on every system.

    Parameters
    ----------
    normal
        Names of classes.

    Returns
    -------
    str
        The names, joined by ``+``.
    """
    return "+".join(re.sub(r"[^\w-]", "_", name) for name in normal)


def complete_experiment(
    experiment: Experiment, settings: Settings, dataset: Dataset, folder: Path, *, jobs: int = 1
) -> None:
    """Train, export and score everything of an experiment that is missing.

    Parameters
    ----------
    experiment
        The experiment.
    settings
        Settings of the comparison.
    dataset
        The images.
    folder
        Folder of the comparison.
    jobs
        Number of experiments that train at the same time, for the record.

    Raises
    ------
    InterruptedExperimentError
        If training was interrupted.
    TrainingError
        If training failed.
    ExportError
        If a file does not compute the same as its model.
    OutputError
        If a file cannot be written.
    """
    place = folder / experiment.folder
    data = dataset.training_set(experiment.normal)
    if not (place / _TRAINED).exists():
        _train(experiment, settings, data, place, jobs)
    missing = [score for score in experiment.scores if not (place / f"{score}.npy").exists()]
    export_scores(place, {score: place / f"{score}.onnx" for score in missing}, data)
    for score in missing:
        write_atomically(place / f"{score}.npy", _pack(_score(place / f"{score}.onnx", dataset)))


def is_complete(experiment: Experiment, folder: Path) -> bool:
    """Return whether all files of an experiment exist.

    Parameters
    ----------
    experiment
        The experiment.
    folder
        Folder of the comparison.

    Returns
    -------
    bool
        True if nothing is missing.
    """
    names = (_TRAINED, *(f"{score}.npy" for score in experiment.scores))
    return all((folder / experiment.folder / name).exists() for name in names)


@contextmanager
def reading(path: Path, cure: str) -> Iterator[None]:
    """Turn errors of reading a file of the comparison into DatasetError, within a ``with`` block.

    Parameters
    ----------
    path
        The file, for the message.
    cure
        The remedy for a damaged file, for the message.

    Raises
    ------
    DatasetError
        If the file cannot be read or is damaged.
    """
    try:
        yield
    except OSError as error:
        raise DatasetError(
            f"cannot read {str(path)!r}: {describe_os_error(error)}; check the file and its permissions"
        ) from error
    except (ValueError, TypeError, EOFError) as error:
        raise DatasetError(f"{str(path)!r} is damaged ({error}); {cure}") from error


def read_trained(experiment: Experiment, folder: Path) -> Trained:
    """Read the result of an experiment's training.

    Parameters
    ----------
    experiment
        The experiment.
    folder
        Folder of the comparison.

    Returns
    -------
    Trained
        The result.

    Raises
    ------
    DatasetError
        If the file cannot be read or is damaged.
    """
    path = folder / experiment.folder / _TRAINED
    with reading(path, f"remove {str(path.parent)!r}"):
        return parse_dataclass(Trained, json.loads(path.read_bytes()))


def read_scores(experiment: Experiment, score: str, dataset: Dataset, folder: Path) -> NDArray[np.float32]:
    """Read the scores of the test images.

    Parameters
    ----------
    experiment
        The experiment.
    score
        Name of the score.
    dataset
        The images.
    folder
        Folder of the comparison.

    Returns
    -------
    NDArray[np.float32]
        Scores [n], in the order of the test images.

    Raises
    ------
    DatasetError
        If the file cannot be read or is damaged.
    """
    path = folder / experiment.folder / f"{score}.npy"
    with reading(path, "remove it and compare again"):
        scores = np.load(path, allow_pickle=False)
        if scores.shape != dataset.test.labels.shape or scores.dtype != np.float32:
            raise ValueError(f"its values are {scores.dtype} {list(scores.shape)}")
    return np.asarray(scores, np.float32)


def _train(experiment: Experiment, settings: Settings, data: TrainingSet, place: Path, jobs: int) -> None:
    options = TrainOptions(
        variant=experiment.variant, epochs=settings.epochs, holdout=_HOLDOUT, patience=0, seed=experiment.seed
    )
    devices = Devices(accelerator="cpu")
    started = time.process_time()
    resumes = (place / CHECKPOINT).exists()
    if resumes:
        outcome = resume(place, data, devices=devices)
    else:
        (place / WEIGHTS).unlink(missing_ok=True)  # the first epoch was interrupted before its checkpoint
        outcome = train(data, place, options, devices=devices)
    if outcome.reason == "interrupted":
        raise InterruptedExperimentError(f"{experiment} was interrupted in epoch {outcome.epoch + 1} and saved")
    trained = Trained(
        epochs=outcome.epoch,
        best_epoch=outcome.best_epoch,
        held_out_error=outcome.best_loss,
        images=len(data.images),
        seconds=round(outcome.seconds, 3),
        cpu_seconds=None if resumes else round(time.process_time() - started, 3),
        threads=torch.get_num_threads(),
        jobs=jobs,
    )
    write_atomically(place / _TRAINED, (json.dumps(asdict(trained), indent=1) + "\n").encode())
    logging.getLogger("onspect").info("%s: trained in %.0f s", experiment, outcome.seconds)


def _score(model: Path, dataset: Dataset) -> NDArray[np.float32]:
    """Score the test images with the model file, as a line does."""
    inspector = Inspector(model, provider="cpu")
    images = dataset.test.images
    parts = [inspector.infer(images[start : start + _BATCH]).score for start in range(0, len(images), _BATCH)]
    return np.concatenate(parts).astype(np.float32)


def _pack(scores: NDArray[np.float32]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, scores, allow_pickle=False)
    return buffer.getvalue()
