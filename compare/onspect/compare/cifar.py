"""Reader for CIFAR-10 as it is published: the binary version, or the pickles of the Python version."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onspect.compare.plain_pickle import PickledArray, read_plain_pickle
from onspect.runtime.atomic import describe_os_error
from onspect.runtime.errors import DatasetError

_SIDE, _CHANNELS = 32, 3
_PIXELS = _CHANNELS * _SIDE * _SIDE
_TRAIN, _TEST = tuple(f"data_batch_{number}" for number in range(1, 6)), ("test_batch",)

Labelled = tuple[NDArray[np.uint8], NDArray[np.uint8]]


def find_cifar(folder: Path) -> Path | None:
    """Return the folder with CIFAR-10's files.

    Parameters
    ----------
    folder
        A folder with the files, or with the unpacked archive's folder.

    Returns
    -------
    Path or None
        The folder with the files; None if there are none.
    """
    for place in (folder, folder / "cifar-10-batches-bin", folder / "cifar-10-batches-py"):
        if (place / "test_batch.bin").is_file() or (place / "test_batch").is_file():
            return place
    return None


def read_cifar(folder: Path) -> tuple[tuple[str, ...], Labelled, Labelled]:
    """Read the images and labels. No code in a pickle is executed.

    Parameters
    ----------
    folder
        The folder with the files.

    Returns
    -------
    tuple[tuple[str, ...], Labelled, Labelled]
        Names of the classes; images, uint8 [n, 32, 32, 3] in BGR, with labels, uint8 [n], of the training set; the same
        of the test set.

    Raises
    ------
    DatasetError
        If a file is missing or damaged.
    """
    binary = (folder / "test_batch.bin").is_file()
    read = _read_binary if binary else _read_pickle
    names = _read_names(folder, binary=binary)
    ending = ".bin" if binary else ""
    train = _join([read(folder / f"{name}{ending}") for name in _TRAIN])
    test = _join([read(folder / f"{name}{ending}") for name in _TEST])
    for _, labels in (train, test):
        if labels.max() >= len(names):
            raise DatasetError(f"{str(folder)!r} has the label {labels.max()}, but names for only {len(names)} classes")
    return names, train, test


def _read_names(folder: Path, *, binary: bool) -> tuple[str, ...]:
    path = folder / ("batches.meta.txt" if binary else "batches.meta")
    if binary:
        names: Any = [line.strip() for line in _read(path).decode("utf-8", "replace").splitlines() if line.strip()]
    else:
        names = _entry(path, read_plain_pickle(path), "label_names")
        names = [name.decode("utf-8", "replace") if isinstance(name, bytes) else name for name in names]
    if not names or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise DatasetError(f"{str(path)!r} does not name the classes, each once; fetch it again")
    return tuple(names)


def _read_binary(path: Path) -> Labelled:
    """Read records of one byte for the class and 3072 for the image: all red values by rows, then green, blue."""
    content = np.frombuffer(_read(path), np.uint8)
    if content.size == 0 or content.size % (1 + _PIXELS):
        raise DatasetError(
            f"{str(path)!r} has {content.size} bytes, not records of {1 + _PIXELS} (CIFAR-10's binary version); "
            "fetch it again"
        )
    records = content.reshape(-1, 1 + _PIXELS)
    return _to_bgr(records[:, 1:]), records[:, 0]


def _read_pickle(path: Path) -> Labelled:
    content = read_plain_pickle(path)
    data, labels = _entry(path, content, "data"), _entry(path, content, "labels")
    rows = data.values if isinstance(data, PickledArray) else np.empty(0, np.uint8)
    if rows.ndim != 2 or rows.shape[1] != _PIXELS or not len(rows):
        raise DatasetError(f"the 'data' of {str(path)!r} is not an array of images of {_PIXELS} bytes; fetch it again")
    if (
        not isinstance(labels, list)
        or len(labels) != len(rows)
        or not all(isinstance(label, int) and 0 <= label < 256 for label in labels)
    ):
        raise DatasetError(
            f"the 'labels' of {str(path)!r} are not a list with one number for each image; fetch it again"
        )
    return _to_bgr(rows), np.array(labels, np.uint8)


def _entry(path: Path, content: Any, name: str) -> Any:
    """Return an entry of a pickled dictionary, whose keys are text or, from Python 2, bytes."""
    if isinstance(content, dict):
        for key in (name, name.encode()):
            if key in content:
                return content[key]
    raise DatasetError(f"{str(path)!r} has no entry {name!r}: it is not of CIFAR-10's Python version; fetch it again")


def _to_bgr(planes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    images = planes.reshape(-1, _CHANNELS, _SIDE, _SIDE)[:, ::-1].transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images)


def _join(parts: Sequence[Labelled]) -> Labelled:
    return np.concatenate([images for images, _ in parts]), np.concatenate([labels for _, labels in parts])


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DatasetError(f"cannot read {str(path)!r}: {describe_os_error(error)}; fetch it again") from error
