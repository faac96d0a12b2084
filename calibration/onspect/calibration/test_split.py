"""Test images that are held back at calibration: recorded in the file, and recognized by `evaluate`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from onspect.calibration.overlap import compare_with_images, compare_with_training, name_first
from onspect.calibration.scores import SeenImage, see_images
from onspect.runtime.dataset.folder import has_split, labelled_images
from onspect.runtime.errors import DatasetError
from onspect.runtime.fingerprints import fingerprint_set, pack_fingerprints, unpack_fingerprints
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.model.file import ModelFile
from onspect.runtime.model.schema import HeldBack
from onspect.runtime.progress import Progress, no_progress


@dataclass(frozen=True)
class SplitShare:
    """Comparison of a set of images with the test images that were held back at calibration."""

    held_back: int
    """Number of test images that were held back."""
    here: int
    """Number of these that are in the set."""
    others: int
    """Number of other images in the set."""

    @property
    def same(self) -> bool:
        """Whether the set is exactly the test images that were held back."""
        return self.here == self.held_back and not self.others

    def describe(self) -> str:
        """Return a description of the set.

        Returns
        -------
        str
            A phrase for the report.
        """
        if self.same:
            return f"the {self.held_back} test images that were held back at calibration"
        if not self.here:
            return f"none of the {self.held_back} test images that were held back at calibration"
        others = f", and {self.others} others" if self.others else ""
        return f"{self.here} of the {self.held_back} test images that were held back at calibration{others}"


def find_test_split(
    inspector: Inspector, data: Path, split: str, progress: Progress = no_progress
) -> tuple[list[SeenImage], list[str]]:
    """Read the test images of a dataset that is calibrated on another split.

    Parameters
    ----------
    inspector
        The model, ready to run.
    data
        A dataset folder.
    split
        Split of the calibration.
    progress
        Wraps long work, for a progress bar.

    Returns
    -------
    tuple[list[SeenImage], list[str]]
        The images, and a sentence for the error if they cannot be read; both are empty if there are no test images.
    """
    if split == "test" or not has_split(data, "test"):
        return [], []
    try:
        images = labelled_images(data, "test")
    except DatasetError as error:
        return [], [f"the file has no record of the test images: {error}"]
    seen = progress(see_images(inspector, images), len(images), "looking at test images")
    first: dict[str, SeenImage] = {}
    for image in seen:
        if image is not None:  # equal images count once
            first.setdefault(image.pixels or image.fingerprint, image)
    return list(first.values()), []


def describe_test_split(found: Sequence[SeenImage]) -> HeldBack | None:
    """Return the record of the test images for a model file.

    Parameters
    ----------
    found
        The test images.

    Returns
    -------
    HeldBack | None
        Number and fingerprints; None if there are no images.
    """
    if not found:
        return None
    fingerprints = [item.fingerprint for item in found]
    return HeldBack(len(found), fingerprint_set(fingerprints), pack_fingerprints(fingerprints))


def describe_overlap(found: Sequence[SeenImage], calibrated_on: Sequence[SeenImage], model: ModelFile) -> list[str]:
    """Return warnings about test images that are also images of the training or of the calibration.

    Test images that only resemble those of the training are left to `evaluate`, because they change its figures.

    Parameters
    ----------
    found
        The test images.
    calibrated_on
        Images of the calibration.
    model
        The model file.

    Returns
    -------
    list[str]
        One sentence for each kind of overlap.
    """
    of_calibration = compare_with_images(found, calibrated_on, model)
    chosen_on = "that this threshold is chosen on"
    pairs = (
        (compare_with_training(found, model).same, "was trained on", "were trained on"),
        (of_calibration.same, f"is among those {chosen_on}", f"are among those {chosen_on}"),
        (of_calibration.twins, f"looks almost like images {chosen_on}", f"look almost like images {chosen_on}"),
    )
    effect = "figures of new parts will be worse; keep all pictures of a part in one folder"
    return [
        f"{len(some)} of {len(found)} test images {one if len(some) == 1 else many}, such as {name_first(some)}: "
        f"{effect}"
        for some, one, many in pairs
        if some
    ]


def compare_with_test_split(fingerprints: Iterable[str], model: ModelFile) -> SplitShare | None:
    """Compare images with the test images that were held back at calibration.

    Parameters
    ----------
    fingerprints
        Fingerprints of the images' files.
    model
        The model file.

    Returns
    -------
    SplitShare | None
        The comparison; None if the file has no record of test images.
    """
    calibration = model.info.calibration
    if calibration is None or calibration.held_back is None:
        return None
    known, given = Counter(unpack_fingerprints(calibration.held_back.fingerprints)), Counter(set(fingerprints))
    here = (known & given).total()
    return SplitShare(known.total(), here, given.total() - here)
