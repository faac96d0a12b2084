"""What an image looks like in 64 bits, by which almost the same picture is known again: a perceptual hash.

An exact fingerprint does not know an image that was saved anew, or the same part photographed twice, and either makes
figures better than they will be. The hash is that of Zauner, "Implementation and benchmarking of perceptual image hash
functions" (2010): the signs of the lowest frequencies of the image's cosine transform. Here each is held against its
median over the training images instead of over the image: parts of one kind look alike, and what all of them have in
common says nothing. `python benchmarks/near_duplicates.py` measures what it finds and what it mistakes.
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
"""Training images whose hashes are kept."""

LIMIT = 4
"""Images whose hashes differ in so many bits or fewer look almost the same."""

_MIRROR_LIMIT = 1  # bits in which the hash of a mirror image may differ

_SIDE = 32
_FEWEST = 16
"""Training images with structure that it takes for medians that mean anything."""

_MOST_ALIKE = 0.2  # of the training images; from then on, that two look almost the same says nothing
_MARGIN = 4  # bits below the closest of them
_CLOSEST = 0.01  # of the training images without a twin: the share that may be as close as the closest

_LEAST_SPREAD = 1.0
"""Standard deviation, in grey levels, below which an image has no structure to be known by."""

_FREQUENCIES = sorted(
    ((down, across) for down in range(_SIDE) for across in range(_SIDE) if down + across > 0),
    key=lambda place: (place[0] + place[1], place[0]),
)[:BITS]
_ROWS, _COLUMNS = np.array(_FREQUENCIES).T


def dct_features(image: NDArray[np.uint8]) -> NDArray[np.float32] | None:
    """Return the 64 lowest frequencies of a prepared image, uint8 [h, w, c]; None where it has no structure."""
    grey = image.mean(axis=2, dtype=np.float32)
    small = cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    if float(small.std()) < _LEAST_SPREAD:
        return None
    return np.asarray(cv2.dct(small)[_ROWS, _COLUMNS], np.float32)


def learn_near_duplicates(images: NDArray[np.uint8], fingerprints: Sequence[str], most: int = MOST) -> Looks | None:
    """Return the looks of training images, by which others are held against them; None where there are too few.

    images are prepared, uint8 [n, h, w, c]. Of more than `most` those with the smallest fingerprints are kept, as the
    fingerprints themselves are.
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
    """Return looks with those of further training images, by the same medians; learned anew where there are none.

    images, fingerprints: as in `learn_near_duplicates`. The first `MOST` hashes stay.
    """
    if looks is None:
        return learn_near_duplicates(images, fingerprints)
    added = [hash_look(dct_features(image), looks) for image in images]
    return Looks(looks.medians, (*looks.hashes, *filter(None, added))[:MOST])


def hash_look(look: NDArray[np.float32] | None, looks: Looks | None) -> str:
    """Return an image's hash, 16 hexadecimal digits, by the training images' medians; empty where there is none."""
    return "" if look is None or looks is None else _pack(look, np.array(looks.medians, np.float32))


def _pack(look: NDArray[np.float32], medians: NDArray[np.float32]) -> str:
    return np.packbits(look > medians).tobytes().hex()


def find_near_duplicates(hashes: Sequence[str], known: Iterable[str], limit: int = LIMIT) -> list[bool]:
    """Tell of each hash whether it differs from any known one in at most `limit` bits; an empty one does from all."""
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
    """Tell of each image, by its `dct_features`, whether a known hash is of its mirror image or of it turned by half.

    Parts that are nearly symmetrical have mirror images that look alike, so `limit` is lowered to 1 bit.
    """
    others, found = list(known), [False] * len(features)
    for down, across in ((0, 1), (1, 0), (1, 1)):
        signs = ((-1.0) ** (down * _ROWS + across * _COLUMNS)).astype(np.float32)
        hashes = [hash_look(None if one is None else one * signs, looks) for one in features]
        alike = find_near_duplicates(hashes, others, min(limit, _MIRROR_LIMIT))
        found = [before or now for before, now in zip(found, alike, strict=True)]
    return found


def choose_limit(known: Sequence[str]) -> int:
    """Return in how many bits two images may differ to look almost the same, from training images' hashes.

    Pictures of different parts that simply look alike must not count: the limit is four bits below what the most alike
    of the training images that have no twin differ in, `LIMIT` at most. It is below 0, so that nothing counts, where
    more than a fifth of the training images have a twin among each other.
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
    """Return how many of the hashes differ from another one of them in at most `LIMIT` bits; empty ones do not."""
    known = [text for text in hashes if text]
    return int((_measure_nearest(known, known, apart=True) <= LIMIT).sum()) if len(known) > 1 else 0


def _measure_nearest(hashes: Sequence[str], others: Sequence[str], *, apart: bool = False) -> NDArray[np.float32]:
    """Return in how many bits each hash differs from the nearest other; with apart, not from the one at its place."""
    bits, nearest = _unpack(others), []
    for start in range(0, len(hashes), 1024):  # bounded memory, however many there are
        agreement = _unpack(hashes[start : start + 1024]) @ bits.T  # equal bits less different ones
        if apart:
            rows = np.arange(len(agreement))
            agreement[rows, start + rows] = -BITS
        nearest.append((BITS - agreement.max(axis=1)) / 2.0)
    return np.concatenate(nearest)


def _unpack(hashes: Sequence[str]) -> NDArray[np.float32]:
    """Return the bits of hashes as 1 and -1, float32 [n, 64]."""
    packed = np.frombuffer(bytes.fromhex("".join(hashes)), np.uint8).reshape(-1, BITS // 8)
    return np.unpackbits(packed, axis=1).astype(np.float32) * 2.0 - 1.0
