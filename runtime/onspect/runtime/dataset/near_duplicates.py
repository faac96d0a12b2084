"""Near duplicates: images that look almost the same, found by a 64-bit perceptual hash.

An exact fingerprint does not recognize an image that was saved again, or a part that was photographed twice. Both make
results better than they will be. The hash is that of Zauner, "Implementation and benchmarking of perceptual image hash
functions" (2010): the signs of the lowest frequencies of the image's cosine transform. Here each frequency is compared
with its median over the training images instead of over the image. Parts of one kind look alike, and their common
structure carries no information. `python benchmarks/near_duplicates.py` measures found and mistaken duplicates.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from onspect.runtime.model.schema import Looks

BITS = 64
"""Length of a hash."""

MOST = 10_000
"""Largest number of training images whose hashes are kept."""

LIMIT = 4
"""Largest number of different bits in the hashes of near duplicates."""

_MIRROR_LIMIT = 1  # largest number of different bits in the hash of a mirror image

_SIDE = 32
_FEWEST = 16
"""Smallest number of training images with structure that gives useful medians."""

_MOST_ALIKE = 0.2  # of the training images; above this share near duplicates are normal
_MARGIN = 4  # bits below the most similar different images
_CLOSEST = 0.01  # share of the training images without a duplicate that is ignored as too similar

_LEAST_SPREAD = 1.0
"""Standard deviation, in grey levels, below which an image has no structure to recognize."""

_FREQUENCIES = sorted(
    ((down, across) for down in range(_SIDE) for across in range(_SIDE) if down + across > 0),
    key=lambda place: (place[0] + place[1], place[0]),
)[:BITS]
_ROWS, _COLUMNS = np.array(_FREQUENCIES).T


def dct_features(image: NDArray[np.uint8]) -> NDArray[np.float32] | None:
    """Return the 64 lowest frequencies of a prepared image.

    Parameters
    ----------
    image
        uint8 [height, width, channels].

    Returns
    -------
    NDArray[np.float32] or None
        float32 [64]; None if the image has no structure.
    """
    grey = image.mean(axis=2, dtype=np.float32)
    small = cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    if float(small.std()) < _LEAST_SPREAD:
        return None
    return np.asarray(cv2.dct(small)[_ROWS, _COLUMNS], np.float32)


def learn_near_duplicates(images: NDArray[np.uint8], fingerprints: Sequence[str], most: int = MOST) -> Looks | None:
    """Learn the medians and the hashes of training images.

    Parameters
    ----------
    images
        Prepared images, uint8 [n, height, width, channels].
    fingerprints
        Fingerprint of each image.
    most
        Largest number of images; those with the smallest fingerprints are kept, like the fingerprints
        themselves.

    Returns
    -------
    Looks or None
        The medians and hashes, None if there are too few images.
    """
    order = np.argsort(np.array(fingerprints))[:most]
    described = [dct_features(images[place]) for place in order]
    found = [look for look in described if look is not None]
    if len(found) < _FEWEST:
        return None
    medians = np.median(np.stack(found), axis=0).astype(np.float32)
    return Looks(
        medians=tuple(float(value) for value in medians),
        hashes=tuple(_pack(look, medians) for look in found),
    )


def extend_near_duplicates(looks: Looks | None, images: NDArray[np.uint8], fingerprints: Sequence[str]) -> Looks | None:
    """Add the hashes of further training images, by the same medians.

    Parameters
    ----------
    looks
        Medians and hashes of the earlier images; None learns new ones (`learn_near_duplicates`).
    images
        Prepared images, uint8 [n, height, width, channels].
    fingerprints
        Fingerprint of each image.

    Returns
    -------
    Looks or None
        The medians and all hashes; the first `MOST` are kept. None if there are too few images.
    """
    if looks is None:
        return learn_near_duplicates(images, fingerprints)
    added = [hash_look(dct_features(image), looks) for image in images]
    return Looks(looks.medians, (*looks.hashes, *filter(None, added))[:MOST])


def hash_look(look: NDArray[np.float32] | None, looks: Looks | None) -> str:
    """Return the hash of an image by the medians of the training images.

    Parameters
    ----------
    look
        The frequencies from `dct_features`, float32 [64], or None.
    looks
        The medians, or None.

    Returns
    -------
    str
        16 hexadecimal digits; empty if one of the two is None.
    """
    return "" if look is None or looks is None else _pack(look, np.array(looks.medians, np.float32))


def _pack(look: NDArray[np.float32], medians: NDArray[np.float32]) -> str:
    return np.packbits(look > medians).tobytes().hex()


def find_near_duplicates(hashes: Sequence[str], known: Iterable[str], limit: int = LIMIT) -> list[bool]:
    """Find the hashes that differ from a known one in few bits.

    Parameters
    ----------
    hashes
        Hashes of the images; an empty one differs from all.
    known
        Hashes of the known images.
    limit
        Largest number of different bits.

    Returns
    -------
    list[bool]
        Whether each hash has a near duplicate.
    """
    others = [text for text in known if text]
    found = [False] * len(hashes)
    places = [place for place, text in enumerate(hashes) if text]
    if not others or not places:
        return found
    for place, nearest in zip(places, _measure_nearest([hashes[place] for place in places], others), strict=True):
        found[place] = bool(nearest <= limit)
    return found


def find_mirrored(
    features: Sequence[NDArray[np.float32] | None], looks: Looks, known: Iterable[str], limit: int
) -> list[bool]:
    """Find the images whose mirror image, or copy turned by 180 degrees, has a known hash.

    Nearly symmetrical parts look like their mirror images, so `limit` is lowered to 1 bit.

    Parameters
    ----------
    features
        The frequencies of each image (`dct_features`), float32 [64] or None.
    looks
        The medians of the training images.
    known
        Hashes of the known images.
    limit
        Largest number of different bits.

    Returns
    -------
    list[bool]
        Whether each image has such a mirror image.
    """
    others, found = list(known), [False] * len(features)
    for down, across in ((0, 1), (1, 0), (1, 1)):
        signs = ((-1.0) ** (down * _ROWS + across * _COLUMNS)).astype(np.float32)
        hashes = [hash_look(None if one is None else one * signs, looks) for one in features]
        alike = find_near_duplicates(hashes, others, min(limit, _MIRROR_LIMIT))
        found = [before or now for before, now in zip(found, alike, strict=True)]
    return found


def choose_limit(known: Sequence[str]) -> int:
    """Choose in how many bits two images may differ to count as near duplicates.

    Pictures of different parts that look alike must not count. The limit is four bits below the distance of the
    most similar training images without a duplicate.

    Parameters
    ----------
    known
        Hashes of the training images.

    Returns
    -------
    int
        At most `LIMIT`. Below 0, so that nothing counts, if more than a fifth of the training images have a
        duplicate.
    """
    hashes = [text for text in known if text]
    if len(hashes) < _FEWEST:
        return LIMIT
    nearest = _measure_nearest(hashes, hashes, apart=True)
    alike = nearest <= LIMIT
    if alike.mean() > _MOST_ALIKE:
        return -1
    closest = np.sort(nearest[~alike])[int(_CLOSEST * (~alike).sum())]
    return min(LIMIT, int(closest) - _MARGIN)


def count_twins(hashes: Sequence[str]) -> int:
    """Count the hashes that have a near duplicate among the others.

    Parameters
    ----------
    hashes
        Hashes of images; empty ones do not count.

    Returns
    -------
    int
        How many differ from another one in at most `LIMIT` bits.
    """
    known = [text for text in hashes if text]
    return int((_measure_nearest(known, known, apart=True) <= LIMIT).sum()) if len(known) > 1 else 0


def _measure_nearest(hashes: Sequence[str], others: Sequence[str], *, apart: bool = False) -> NDArray[np.float32]:
    """Return in how many bits each hash differs from the nearest other one.

    With apart, each hash is not compared with the one at its own position.
    """
    bits, nearest = _unpack(others), []
    for start in range(0, len(hashes), 1024):  # bounds the memory
        agreement = (
            _unpack(hashes[start : start + 1024]) @ bits.T
        )  # number of equal bits minus number of different bits
        if apart:
            rows = np.arange(len(agreement))
            agreement[rows, start + rows] = -BITS
        nearest.append((BITS - agreement.max(axis=1)) / 2.0)
    return np.concatenate(nearest)


def _unpack(hashes: Sequence[str]) -> NDArray[np.float32]:
    """Return the bits of hashes as 1 and -1, float32 [n, 64]."""
    packed = np.frombuffer(bytes.fromhex("".join(hashes)), np.uint8).reshape(-1, BITS // 8)
    return np.unpackbits(packed, axis=1).astype(np.float32) * 2.0 - 1.0
