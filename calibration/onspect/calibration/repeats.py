"""Images with the same pixels as another image. They count once in every figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from onspect.calibration.scores import fingerprint_pixels_of
from onspect.runtime.dataset.folder import LabelledImage
from onspect.runtime.errors import DatasetError
from onspect.runtime.outliers import name_some


def drop_repeats(images: Sequence[LabelledImage]) -> tuple[list[LabelledImage], list[Path]]:
    """Remove images with the same pixels as an earlier one.

    Parameters
    ----------
    images
        Labelled images.

    Returns
    -------
    tuple[list[LabelledImage], list[Path]]
        The images that are kept, and the paths of the others.

    Raises
    ------
    DatasetError
        If an image is both among the good and among the defective ones.
    """
    repeats = Repeats()
    kept = [
        image
        for image, fingerprint in zip(images, fingerprint_pixels_of(images), strict=True)
        if fingerprint is None or not repeats.is_repeat(image, fingerprint)
    ]
    return kept, repeats.paths


class Repeats:
    """Remembers images and recognizes those with the same pixels."""

    def __init__(self) -> None:
        self._first: dict[str, LabelledImage] = {}
        self.paths: list[Path] = []

    def is_repeat(self, image: LabelledImage, fingerprint: str) -> bool:
        """Return whether equal pixels came before, and remember these.

        Parameters
        ----------
        image
            A labelled image.
        fingerprint
            Fingerprint of its pixels.

        Returns
        -------
        bool
            Whether an earlier image has the same pixels.

        Raises
        ------
        DatasetError
            If one of them is good and the other defective.
        """
        first = self._first.setdefault(fingerprint, image)
        if first is image:
            return False
        if first.defective != image.defective:
            raise DatasetError(
                f"{str(first.path)!r} and {str(image.path)!r} are the same image, once as {first.kind!r} and once as "
                f"{image.kind!r}; remove the one that is wrong"
            )
        self.paths.append(image.path)
        return True


def describe_repeats(paths: Sequence[Path], total: int) -> list[str]:
    """Return a sentence about files that repeat another one.

    Parameters
    ----------
    paths
        The repeated files.
    total
        Number of all images.

    Returns
    -------
    list[str]
        One sentence; empty if there are no such files.
    """
    if not paths:
        return []
    verb = "repeats another file and counts" if len(paths) == 1 else "repeat other files and count"
    return [f"{len(paths)} of {total} images {verb} once, such as {name_some([str(path) for path in paths], 1)}"]
