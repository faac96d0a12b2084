"""Fingerprints of image files and of sets of them, and signatures of files on the disk."""

from __future__ import annotations

import base64
import hashlib
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray


Signature = tuple[int, int, int]
"""Time of change in nanoseconds, size in bytes, and number of a file."""


def fingerprint_bytes(data: bytes) -> str:
    """Return the fingerprint of an image file.

    Parameters
    ----------
    data
        The bytes of the file.

    Returns
    -------
    str
        64 bits of BLAKE2b, 16 hexadecimal digits.
    """
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def fingerprint_pixels(frame: NDArray[Any]) -> str:
    """Return the fingerprint of an image's shape, dtype and pixels. A file that is saved again keeps it.

    Parameters
    ----------
    frame
        The image, any shape and dtype.

    Returns
    -------
    str
        64 bits of BLAKE2b, 16 hexadecimal digits.
    """
    return fingerprint_bytes(repr((frame.shape, frame.dtype.str)).encode() + frame.tobytes())


def fingerprint_set(fingerprints: Iterable[str]) -> str:
    """Return one fingerprint for a set of image fingerprints, whatever their order.

    Parameters
    ----------
    fingerprints
        The fingerprints.

    Returns
    -------
    str
        128 bits of BLAKE2b, 32 hexadecimal digits.
    """
    return hashlib.blake2b("\n".join(sorted(fingerprints)).encode(), digest_size=16).hexdigest()


def pack_fingerprints(fingerprints: Iterable[str]) -> str:
    """Pack fingerprints or hashes as text.

    Parameters
    ----------
    fingerprints
        16 hexadecimal digits each.

    Returns
    -------
    str
        Base64, 8 bytes each.
    """
    return base64.b64encode(bytes.fromhex("".join(fingerprints))).decode()


def unpack_fingerprints(text: str) -> list[str]:
    """Unpack the text of `pack_fingerprints`.

    Parameters
    ----------
    text
        Base64.

    Returns
    -------
    list[str]
        The fingerprints, 16 hexadecimal digits each.

    Raises
    ------
    ValueError
        If the text is damaged.
    """
    packed = base64.b64decode(text)
    return [packed[place : place + 8].hex() for place in range(0, len(packed), 8)]


def sign_file(path: Path) -> Signature | None:
    """Return what identifies the content of a file while it is not changed.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    Signature | None
        Time of change, size and number of the file; None if it is gone or is not a file.
    """
    try:
        facts = path.stat()
    except OSError:
        return None
    return (facts.st_mtime_ns, facts.st_size, facts.st_ino) if stat.S_ISREG(facts.st_mode) else None
