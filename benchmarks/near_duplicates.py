"""What does the perceptual hash find, and what does it confuse? Measured on a dataset, for each limit of bits.

Computes the hashes of train/good as training does, with a model file's preprocessing. Prints for each limit: the share
of training images that are found after a change, the share of pairs of different training images within the limit, and
the images of val/ and test/ that look almost like a training image. If file names say which images show the same part,
give --part and --within; images without such a part in training are then counted separately. Needs onspect[cpu].

    python benchmarks/near_duplicates.py tile.onnx magnetic_tile --part "num_([0-9]+)" --within 150
"""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from onspect.runtime.dataset.folder import labelled_images, training_images
from onspect.runtime.dataset.near_duplicates import BITS, LIMIT, dct_features, hash_look, learn_near_duplicates
from onspect.runtime.fingerprints import fingerprint_bytes
from onspect.runtime.images.decode import read_image
from onspect.runtime.images.preprocess import prepare
from onspect.runtime.model.file import read_model_info
from onspect.runtime.model.schema import Looks, Preprocess, SourceLimits

LIMITS = (0, 2, 4, 6, 8)
Frame = NDArray[np.uint8]


def save_anew(quality: int) -> Callable[[Frame], Frame]:
    """Return a function that saves a frame as JPEG and reads it back."""
    settings = [cv2.IMWRITE_JPEG_QUALITY, quality]
    return lambda frame: np.asarray(cv2.imdecode(cv2.imencode(".jpg", frame, settings)[1], cv2.IMREAD_UNCHANGED))


CHANGES: dict[str, Callable[[Frame], Frame]] = {
    "JPEG, quality 70": save_anew(70),
    "JPEG, quality 40": save_anew(40),
    "10% brighter": lambda frame: np.asarray(cv2.convertScaleAbs(frame, alpha=1.1)),
    "half the size": lambda frame: np.asarray(cv2.resize(frame, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)),
    "2 pixels cut off": lambda frame: frame[2:, 2:],
    "5% cut off all round": lambda frame: frame[
        frame.shape[0] // 20 : -(frame.shape[0] // 20), frame.shape[1] // 20 : -(frame.shape[1] // 20)
    ],
}


def bits(hashes: list[str]) -> NDArray[np.float32]:
    """Return the bits of hashes as 1 and -1, [n, 64]; a missing hash is 0, at the same distance from all."""
    rows = [np.frombuffer(bytes.fromhex(text), np.uint8) if text else None for text in hashes]
    return np.stack(
        [np.zeros(BITS, np.float32) if row is None else np.unpackbits(row).astype(np.float32) * 2 - 1 for row in rows]
    )


def measure_distances(first: list[str], second: list[str]) -> NDArray[np.float32]:
    """Return the number of different bits of each pair of hashes, [n, m]."""
    return np.asarray((BITS - bits(first) @ bits(second).T) / 2, np.float32)


def hash_frame(frame: Frame, preprocess: Preprocess, looks: Looks) -> str:
    """Return a frame's hash."""
    return hash_look(dct_features(prepare(frame, preprocess)), looks)


def read_number(path: Path, pattern: str | None) -> int | None:
    """Return the number in a file's name that identifies the part, or None."""
    found = re.search(pattern, path.name) if pattern else None
    return int(found[1]) if found else None


def main() -> None:
    """Run it and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--part", metavar="REGEX", help="Finds the number in a file's name that tells the part.")
    parser.add_argument("--within", type=int, default=0, help="Numbers so far apart or less are of the same part.")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    preprocess = read_model_info(arguments.model).preprocess
    preprocess = dataclasses.replace(
        preprocess, source=SourceLimits((1, 3), None, None)
    )  # changed sizes are wanted here
    paths = training_images(arguments.data)
    frames = [read_image(path) for path in paths]
    prepared = np.stack([prepare(frame, preprocess) for frame in frames])
    looks = learn_near_duplicates(prepared, [fingerprint_bytes(path.read_bytes()) for path in paths])
    assert looks is not None
    trained = [hash_look(dct_features(image), looks) for image in prepared]

    print(f"{len(paths)} training images; the limit in use is {LIMIT} of {BITS} bits")
    print(f"{'':<44}" + "".join(f"{f'<= {limit}':>8}" for limit in LIMITS))
    for name, change in CHANGES.items():
        changed = bits([hash_frame(change(frame), preprocess, looks) for frame in frames])
        differing = (BITS - (changed * bits(trained)).sum(axis=1)) / 2
        print(f"{'known again: ' + name:<44}" + "".join(f"{(differing <= n).mean():>8.1%}" for n in LIMITS))
    pairs = measure_distances(trained, trained)[np.triu_indices(len(trained), 1)]
    print(f"{'pairs of training images':<44}" + "".join(f"{(pairs <= limit).mean():>8.3%}" for limit in LIMITS))

    numbers = np.array([read_number(path, arguments.part) or -(10**9) for path in paths])
    for split in ("val", "test"):
        images = labelled_images(arguments.data, split)
        for defective in (False, True):
            some = [image.path for image in images if image.defective == defective]
            if not some:
                continue
            apart = measure_distances([hash_frame(read_image(p), preprocess, looks) for p in some], trained)
            label = f"{split}, {'defective' if defective else 'good'} ({len(some)}): flagged"
            print(f"{label:<44}" + "".join(f"{int((apart.min(axis=1) <= n).sum()):>8}" for n in LIMITS))
            if arguments.part:
                own = np.array([read_number(path, arguments.part) or 10**9 for path in some])
                same = (np.abs(own[:, None] - numbers) <= arguments.within).any(axis=1)
                wrong = [int(((apart.min(axis=1) <= limit) & ~same).sum()) for limit in LIMITS]
                label = f"  of these without the part in training ({int((~same).sum())})"
                print(f"{label:<44}" + "".join(f"{count:>8}" for count in wrong))


if __name__ == "__main__":
    main()
