import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onspect.compare.cifar import find_cifar, read_cifar
from onspect.compare.datasets import load_dataset
from onspect.compare.plain_pickle import read_plain_pickle
from onspect.runtime.errors import DatasetError

CLASSES = ("airplane", "dog")


def draw_batch(seed: int) -> tuple[np.ndarray, list[int]]:
    """Four images as rows of 3072 bytes, red plane first, with labels."""
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (4, 3072), np.uint8), [0, 1, 1, 0]


def write_binary(folder: Path) -> Path:
    folder.mkdir()
    for seed, name in enumerate([*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]):
        rows, labels = draw_batch(seed)
        records = np.concatenate([np.array(labels, np.uint8)[:, None], rows], axis=1)
        (folder / f"{name}.bin").write_bytes(records.tobytes())
    (folder / "batches.meta.txt").write_text("\n".join(CLASSES) + "\n\n")
    return folder


def write_pickles(folder: Path, protocol: int = 2) -> Path:
    """The Python version, its keys and names bytes as Python 2 wrote them."""
    folder.mkdir()
    for seed, name in enumerate([*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]):
        rows, labels = draw_batch(seed)
        content = {b"batch_label": b"some", b"labels": labels, b"data": rows, b"filenames": [b"a.png"] * 4}
        (folder / name).write_bytes(pickle.dumps(content, protocol=protocol))
    names = {b"label_names": [name.encode() for name in CLASSES], b"num_vis": 3072}
    (folder / "batches.meta").write_bytes(pickle.dumps(names, protocol=protocol))
    return folder


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
def test_both_versions_hold_the_same(tmp_path: Path, protocol: int) -> None:
    """The binary version and the pickles of any protocol give the same images, labels and names."""
    binary = read_cifar(write_binary(tmp_path / "binary"))
    pickles = read_cifar(write_pickles(tmp_path / "pickles", protocol))
    assert binary[0] == pickles[0] == CLASSES
    for ours, theirs in zip(binary[1:], pickles[1:], strict=True):
        np.testing.assert_array_equal(ours[0], theirs[0])
        np.testing.assert_array_equal(ours[1], theirs[1])


def test_images_are_blue_first(tmp_path: Path) -> None:
    """An image's planes, red first and row by row, become pixels in BGR as frames are, batches in their order."""
    _, (images, _), _ = read_cifar(write_binary(tmp_path / "binary"))
    rows, _ = draw_batch(1)
    planes = rows[2].reshape(3, 32, 32)
    assert images.shape == (20, 32, 32, 3)
    assert images[4 + 2, 7, 9].tolist() == [planes[2, 7, 9], planes[1, 7, 9], planes[0, 7, 9]]


def test_collection_of_the_archive(tmp_path: Path) -> None:
    """The folder around the archive's own is found, and the paper's normal class and networks are the usual ones."""
    write_binary(tmp_path / "cifar-10-batches-bin")
    dataset = load_dataset(tmp_path, limit=2)
    assert (dataset.name, dataset.usual, dataset.preset) == ("CIFAR-10", ("dog",), "paper")
    assert np.bincount(dataset.train.labels).tolist() == [2, 2]


class Malicious:
    """Unpickled by Python's own unpickler, it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", range(6))
def test_malicious_pickle_is_not_executed(tmp_path: Path, protocol: int) -> None:
    """A pickle that calls something is refused with its name, and nothing of it runs."""
    folder = write_pickles(tmp_path / "pickles")
    trap = pickle.dumps({b"data": Malicious(tmp_path / "owned"), b"labels": [0]}, protocol=protocol)
    (folder / "data_batch_3").write_bytes(trap)
    with pytest.raises(DatasetError, match=r"_3' contains a reference to \w+\.mkdir.*nothing in it was executed"):
        read_cifar(folder)
    assert not (tmp_path / "owned").exists()
    pickle.loads(trap)
    assert (tmp_path / "owned").exists(), "the trap is none, so the test shows nothing"


def reconstruct(dtype: str) -> bytes:
    return pickle.dumps(np.zeros(3, dtype), protocol=2)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a pickle or is damaged"),
        (b"not a pickle", "not a pickle or is damaged"),
        (pickle.dumps([1, 2], protocol=2)[:-3], "not a pickle or is damaged"),
        (b"\x80\x02e.", "not a pickle or is damaged"),  # fills a list that is not there
        (b"cos\nsystem\n.", "a reference to os.system"),
        (reconstruct("f8"), "an array of other values than bytes"),
        (reconstruct("O"), "an array of other values than bytes"),
        (b"\x80\x02P1\n.", "an object '1' elsewhere"),
        (b"\x80\x02(ios\nsystem\n.", "a reference to os.system"),
        (b"\x80\x02cnumpy\nndarray\nN\x85R]b.", "is damaged"),  # a state for what has none
    ],
)
def test_what_is_no_plain_data_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    """A damaged pickle, or one with more than plain containers, text, numbers and arrays of bytes, is refused."""
    path = tmp_path / "batch"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=words):
        read_plain_pickle(path)


def test_a_pickle_cannot_change_the_reader(tmp_path: Path) -> None:
    """A pickle that redefines a function of Python changes it for itself only."""
    path = tmp_path / "batch"
    path.write_bytes(b"\x80\x02c_codecs\nencode\nN}X\x0c\x00\x00\x00__defaults__NN\x86s\x86b.")
    assert read_plain_pickle(path).__defaults__ == (None, None)
    path.write_bytes(b"\x80\x02c_codecs\nencode\n.")
    assert read_plain_pickle(path).__defaults__ is None


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        ("data_batch_2.bin", lambda data: data[:-1], "not records of 3073"),
        ("data_batch_2.bin", None, "cannot read"),
        ("test_batch.bin", lambda data: b"\x09" + data[1:], "has the label 9, but names for only 2 classes"),
        ("batches.meta.txt", lambda data: b"dog\ndog\n", "does not name the classes, each once"),
    ],
)
def test_damaged_binary_version(tmp_path: Path, name: str, damage: Callable[[bytes], bytes] | None, words: str) -> None:
    """A missing or damaged file of the binary version is refused with the reason."""
    folder = write_binary(tmp_path / "binary")
    if damage is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(damage((folder / name).read_bytes()))
    assert find_cifar(folder) == folder
    with pytest.raises(DatasetError, match=words):
        read_cifar(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({b"data": [1, 2]}, "not an array of images"),
        ({b"labels": [0, 1]}, "not a list with one number for each image"),
        ({b"labels": [0, 1, 1, "dog"]}, "not a list with one number for each image"),
        ({b"data": None, b"label": 1}, "not an array of images"),
    ],
)
def test_pickle_of_something_else(tmp_path: Path, change: dict[bytes, Any], words: str) -> None:
    """A harmless pickle that is not a batch of images is refused with the entry at fault."""
    folder = write_pickles(tmp_path / "pickles")
    rows, labels = draw_batch(0)
    (folder / "data_batch_1").write_bytes(pickle.dumps({b"data": rows, b"labels": labels} | change, protocol=2))
    with pytest.raises(DatasetError, match=words):
        read_cifar(folder)
