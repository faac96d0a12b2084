"""Reader for IDX files, the format of MNIST: a header of big-endian sizes, then bytes, with or without gzip."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from onspect.runtime.atomic import describe_os_error
from onspect.runtime.errors import DatasetError

_GZIP = b"\x1f\x8b"
_BYTES = 0x08  # the code of unsigned bytes in the header's third place
_MOST_DIMENSIONS = 4
_MOST_VALUES = 2**32


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read the array of an IDX file of unsigned bytes.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    NDArray[np.uint8]
        Array with the shape of the header.

    Raises
    ------
    DatasetError
        If the file cannot be read, is not an IDX file, or its size differs from its header.
    """
    try:
        with path.open("rb") as file:
            if file.read(2) == _GZIP:
                file.seek(0)
                with gzip.GzipFile(fileobj=file) as unpacked:
                    return _read(path, unpacked)  # type: ignore[arg-type]  # it has the methods of a file
            file.seek(0)
            return _read(path, file)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DatasetError(f"{str(path)!r} is a damaged gzip file ({error}); fetch it again") from error
    except OSError as error:
        raise DatasetError(
            f"cannot read {str(path)!r}: {describe_os_error(error)}; check the file and its permissions"
        ) from error


def _read(path: Path, file: BinaryIO) -> NDArray[np.uint8]:
    head = file.read(4)
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] != _BYTES or not 1 <= head[3] <= _MOST_DIMENSIONS:
        raise DatasetError(
            f"{str(path)!r} is not an IDX file of bytes: it begins with {head.hex(' ')!r}; fetch it again"
        )
    sizes = file.read(4 * head[3])
    if len(sizes) < 4 * head[3]:
        raise DatasetError(f"{str(path)!r} ends within its header; fetch it again")
    shape = struct.unpack(f">{head[3]}I", sizes)
    expected = math.prod(shape)
    if expected > _MOST_VALUES:
        raise DatasetError(
            f"{str(path)!r} is damaged: its header promises {'x'.join(map(str, shape))} bytes; fetch it again"
        )
    content = file.read(expected + 1)  # one more byte shows that a file is too long, without unpacking all of it
    if len(content) != expected:
        found = "more" if len(content) > expected else f"{len(content)}"
        raise DatasetError(f"{str(path)!r} should have {expected} values and has {found}; fetch it again")
    return np.frombuffer(content, np.uint8).reshape(shape)
