"""Reader for the data in a pickle that executes none of its code.

A pickle is a program that may import and call anything. Here `find_class` of the unpickler has replacements for the few
names by which numpy writes an array of bytes. It refuses every other name.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onspect.runtime.atomic import describe_os_error
from onspect.runtime.errors import DatasetError


class PickledArray:
    """Replacement for an array; `values` has its content, uint8."""

    values: NDArray[np.uint8]

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, by_column, content = state
        if not isinstance(dtype, _Dtype) or dtype.code not in ("u1", b"u1"):
            raise _RefusedError("an array of other values than bytes")
        self.values = np.frombuffer(content, np.uint8).reshape(shape, order="F" if by_column else "C")


class _Dtype:
    """Replacement for the type of an array's values."""

    def __init__(self, code: object) -> None:
        self.code = code

    def __setstate__(self, state: object) -> None:
        """Ignore byte order and alignment, which a byte does not have."""


class _RefusedError(pickle.UnpicklingError):
    """The pickle has something that is not plain data."""


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        # a new function each time, because a pickle may change the one it gets
        match module.replace("numpy._core", "numpy.core"), name:
            case "numpy.core.multiarray", "_reconstruct":
                return lambda *_: PickledArray()
            case "numpy", "dtype":
                return lambda code, *_: _Dtype(code)
            case "numpy", "ndarray":  # argument of the one before
                return lambda *_: None
            case "_codecs", "encode":  # how Python 3 writes bytes for Python 2
                return lambda text, _: bytes(text, "latin-1")
        raise _RefusedError(f"a reference to {module}.{name}")

    def persistent_load(self, pid: object) -> Any:
        raise _RefusedError(f"a reference to an object {pid!r} elsewhere")


def read_plain_pickle(path: Path) -> Any:
    """Read the plain data of a pickle.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    Any
        None, bool, int, float, str, bytes, containers of them, and `PickledArray`. Text of Python 2 is bytes.

    Raises
    ------
    DatasetError
        If the file cannot be read, is damaged, or refers to anything else.
    """
    try:
        return _PlainUnpickler(io.BytesIO(path.read_bytes()), encoding="bytes").load()
    except OSError as error:
        raise DatasetError(
            f"cannot read {str(path)!r}: {describe_os_error(error)}; check the file and its permissions"
        ) from error
    except _RefusedError as error:
        raise DatasetError(
            f"{str(path)!r} contains {error}, which is not plain data; nothing in it was executed, and it is not used"
        ) from error
    except (
        *(pickle.UnpicklingError, EOFError, ImportError, ValueError, IndexError, TypeError, KeyError, AttributeError),
        *(OverflowError, MemoryError),
    ) as error:
        raise DatasetError(f"{str(path)!r} is not a pickle or is damaged ({error}); fetch it again") from error
