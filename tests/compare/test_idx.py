import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from onspect.compare.idx import read_idx
from onspect.runtime.errors import DatasetError

Pack = Callable[[NDArray[np.uint8]], bytes]

VALUES = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_reads_plain_and_compressed(tmp_path: Path, idx_bytes: Pack, compress: Callable[[bytes], bytes]) -> None:
    """An IDX file gives its array whether it is compressed or not, independent of its name."""
    path = tmp_path / "images"
    path.write_bytes(compress(idx_bytes(VALUES)))
    np.testing.assert_array_equal(read_idx(path), VALUES)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: data[:-1], "should have 24 values and has 23"),
        (lambda data: data + b"\0", "should have 24 values and has more"),
        (lambda data: data[:9], "ends within its header"),
        (lambda data: b"\x89PNG" + data, "not an IDX file of bytes"),
        (lambda data: data[:2] + b"\x0d" + data[3:], "not an IDX file of bytes"),
        (lambda data: data[:4] + b"\xff" * 12 + data[16:], "is damaged: its header promises"),
        (lambda data: gzip.compress(data)[:-12], "damaged gzip file"),
    ],
)
def test_damage_is_refused(tmp_path: Path, idx_bytes: Pack, damage: Callable[[bytes], bytes], words: str) -> None:
    """A file that is cut, too long, of another kind or of impossible size is refused with its name."""
    path = tmp_path / "images"
    path.write_bytes(damage(idx_bytes(VALUES)))
    with pytest.raises(DatasetError, match=words) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)
