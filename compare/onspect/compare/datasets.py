"""Labelled image datasets, read into memory: IDX files such as MNIST, CIFAR-10, and folders of parts."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onspect.calibration.scores import find_images
from onspect.compare.cifar import find_cifar, read_cifar
from onspect.compare.idx import read_idx
from onspect.export.onnx_writer import prepare_all
from onspect.runtime.dataset.folder import GOOD
from onspect.runtime.errors import ChoiceError, DatasetError
from onspect.runtime.fingerprints import fingerprint_bytes
from onspect.runtime.model.schema import Preprocess, SourceLimits
from onspect.training.datasets import TrainingSet, load_training_set
from onspect.training.presets import choose_preset

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]

_MNIST = "9b61c31a41795831"  # fingerprint of the 10,000 test labels


@dataclass(frozen=True)
class Split:
    """Images as a model takes them, with their classes."""

    images: Images = field(repr=False)
    """uint8 [n, height, width, channels]."""
    labels: Labels = field(repr=False)
    """Index of each image's class, int64 [n]."""


@dataclass(frozen=True)
class Dataset:
    """Images of several classes for training and for testing."""

    name: str
    """Name in tables."""
    folder: Path
    """The folder that was read."""
    classes: tuple[str, ...]
    """Names of the classes, in the order of their indices."""
    train: Split
    """Training images."""
    test: Split
    """Test images."""
    preprocess: Preprocess
    """How a frame becomes an image of the dataset."""
    preset: str
    """Preset with networks for this size."""
    usual: tuple[str, ...]
    """Classes that are normal by default, as in the paper."""

    def training_set(self, normal: tuple[str, ...]) -> TrainingSet:
        """Return the training images of the normal classes.

        Parameters
        ----------
        normal
            Names of the normal classes.

        Returns
        -------
        TrainingSet
            The images.

        Raises
        ------
        ChoiceError
            If a name is not a class.
        """
        images = self.train.images[np.isin(self.train.labels, self.indices(normal))]
        fingerprints = tuple(fingerprint_bytes(image.tobytes()) for image in images)
        return TrainingSet(self.folder, images, fingerprints, self.preprocess, self.preset)

    def indices(self, names: tuple[str, ...]) -> list[int]:
        """Return the indices of classes.

        Parameters
        ----------
        names
            Names of classes.

        Returns
        -------
        list[int]
            Index of each class.

        Raises
        ------
        ChoiceError
            If a name is not a class.
        """
        for name in names:
            if name not in self.classes:
                raise ChoiceError(f"{name!r} is not a class of {self.name}; choose from {', '.join(self.classes)}")
        return [self.classes.index(name) for name in names]

    def fingerprint(self) -> str:
        """Return a fingerprint of all images and labels.

        Returns
        -------
        str
            Hexadecimal digits.
        """
        parts = [array.tobytes() for split in (self.train, self.test) for array in (split.images, split.labels)]
        return fingerprint_bytes(b"".join(fingerprint_bytes(part).encode() for part in parts))


def load_dataset(folder: str | Path, *, preset: str | None = None, limit: int | None = None) -> Dataset:
    """Read a folder of IDX files (MNIST), of CIFAR-10's files, or of parts as every other command takes it.

    Parameters
    ----------
    folder
        The folder.
    preset
        Name of a preset; None chooses it from the sizes of the images.
    limit
        Largest number of images of each class, for training and for testing; None for all.

    Returns
    -------
    Dataset
        The images, in memory.

    Raises
    ------
    DatasetError
        If the folder is none of these, or its files are damaged.
    ChoiceError
        If the preset has no network for the images.
    """
    folder = Path(folder)
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise DatasetError(f"{str(folder)!r} {what}; give a folder of IDX files, of CIFAR-10's files, or of parts")
    if (place := find_cifar(folder)) is not None:
        dataset = _read_cifar(place, preset)
    elif (found := _read_idx_files(folder, preset)) is not None:
        dataset = found
    else:
        dataset = _read_parts(folder, preset)
    return dataset if limit is None else _shorten(dataset, limit)


def _read_idx_files(folder: Path, preset: str | None) -> Dataset | None:
    found = {
        (split, kind): next(iter(sorted(folder.glob(f"{split}-{kind}*ubyte*"))), None)
        for split in ("train", "t10k")
        for kind in ("images", "labels")
    }
    if all(path is None for path in found.values()):
        return None
    if missing := ["-".join(key) for key, path in found.items() if path is None]:
        raise DatasetError(
            f"{str(folder)!r} has other IDX files, but no {missing[0]}-idx…-ubyte; a dataset is four files, "
            "train- and t10k-, images and labels"
        )
    arrays = {key: read_idx(path) for key, path in found.items() if path is not None}
    splits = []
    for name in ("train", "t10k"):
        images, labels = arrays[name, "images"], arrays[name, "labels"]
        if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels) or not len(images):
            raise DatasetError(
                f"the {name} files of {str(folder)!r} do not belong together: images {list(images.shape)}, labels "
                f"{list(labels.shape)}; fetch them again"
            )
        splits.append(Split(images[..., None], labels.astype(np.int64)))
    name = "MNIST" if fingerprint_bytes(arrays["t10k", "labels"].tobytes()) == _MNIST else folder.resolve().name
    classes = tuple(str(index) for index in range(int(max(split.labels.max() for split in splits)) + 1))
    usual = ("1",) if name == "MNIST" else ()
    return _make(name, folder, classes, splits[0], splits[1], preset, usual)


def _read_cifar(folder: Path, preset: str | None) -> Dataset:
    classes, train, test = read_cifar(folder)
    parts = [Split(images, labels.astype(np.int64)) for images, labels in (train, test)]
    return _make("CIFAR-10", folder, classes, parts[0], parts[1], preset, ("dog",) if "dog" in classes else ())


def _make(
    name: str,
    folder: Path,
    classes: tuple[str, ...],
    train: Split,
    test: Split,
    preset: str | None,
    usual: tuple[str, ...],
) -> Dataset:
    """Return a dataset of images that are as the model takes them already."""
    height, width, channels = train.images.shape[1:]
    if test.images.shape[1:] != train.images.shape[1:]:
        raise DatasetError(f"the training and test images of {str(folder)!r} differ in size; give images of one size")
    preprocess = Preprocess(width, height, channels, 65535, SourceLimits((channels,), (width, width), (height, height)))
    preset = preset or choose_preset([(height, width)], channels)
    return Dataset(name, folder, classes, train, test, preprocess, preset, usual)


def _read_parts(folder: Path, preset: str | None) -> Dataset:
    data = load_training_set(folder, preset=preset)
    labelled = find_images(folder, "test")
    classes = (GOOD, *sorted({image.kind for image in labelled} - {GOOD}))
    labels = np.array([classes.index(image.kind) for image in labelled], np.int64)
    return Dataset(
        name=folder.resolve().name,
        folder=folder,
        classes=classes,
        train=Split(data.images, np.zeros(len(data.images), np.int64)),
        test=Split(prepare_all(labelled, data.preprocess), labels),
        preprocess=data.preprocess,
        preset=data.preset,
        usual=(GOOD,),
    )


def _shorten(dataset: Dataset, limit: int) -> Dataset:
    def first(split: Split) -> Split:
        kept = [np.flatnonzero(split.labels == index)[:limit] for index in range(len(dataset.classes))]
        order = np.sort(np.concatenate(kept))
        return Split(split.images[order], split.labels[order])

    return replace(dataset, train=first(dataset.train), test=first(dataset.test))
