"""Fingerprints of image files, and of sets of them."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray


def fingerprint_bytes(data: bytes) -> str:
    """Return the 64-bit fingerprint (16 hexadecimal digits of BLAKE2b) by which an image file is known again."""
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def fingerprint_pixels(frame: NDArray[Any]) -> str:
    """Return the 64-bit fingerprint of an image's shape, dtype and pixels: a file that is saved again keeps it."""
    return fingerprint_bytes(repr((frame.shape, frame.dtype.str)).encode() + frame.tobytes())


def fingerprint_set(fingerprints: Iterable[str]) -> str:
    """Return one fingerprint (32 hexadecimal digits) for a set of image fingerprints, whatever their order."""
    return hashlib.blake2b("\n".join(sorted(fingerprints)).encode(), digest_size=16).hexdigest()


def pack_fingerprints(fingerprints: Iterable[str]) -> str:
    """Return fingerprints or hashes, 16 hexadecimal digits each, as base64."""
    return base64.b64encode(bytes.fromhex("".join(fingerprints))).decode()


def unpack_fingerprints(text: str) -> list[str]:
    """Return what `pack_fingerprints` packed; raises ValueError where it is damaged."""
    packed = base64.b64decode(text)
    return [packed[place : place + 8].hex() for place in range(0, len(packed), 8)]
