import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ..sharing import Share
from .drawn import draw_class


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Networks this small only lose time by sharing a step between threads."""
    torch.set_num_threads(1)


def pack_idx(values: NDArray[np.uint8]) -> bytes:
    """An IDX file of bytes."""
    return struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()


@pytest.fixture(scope="session")
def idx_bytes() -> Callable[[NDArray[np.uint8]], bytes]:
    """The function that packs an IDX file."""
    return pack_idx


@pytest.fixture(scope="session")
def drawn_idx(share: Share) -> Path:
    """A folder of four IDX files with three drawn classes of 28 px: two compressed, two not."""
    return share("idx", lambda folder: draw_idx(folder / "bars")) / "bars"


def draw_idx(folder: Path) -> None:
    """Write the four files."""
    folder.mkdir()
    for split, count, seed in (("train", 40, 0), ("t10k", 20, 1000)):
        labels = np.repeat(np.arange(3, dtype=np.uint8), count)
        images = np.stack([draw_class(int(label), seed + place) for place, label in enumerate(labels)])
        (folder / f"{split}-images-idx3-ubyte.gz").write_bytes(gzip.compress(pack_idx(images)))
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(pack_idx(labels))
