"""A dataset is a folder: where its training images, its labelled images and their masks lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from onspect.runtime.errors import DatasetError
from onspect.runtime.files import list_images

GOOD = "good"
"""The name of the folder, and the kind, of defect-free images."""


@dataclass(frozen=True)
class LabelledImage:
    """An image with what is known of it: kind is ``good`` or a defect's name, mask an image of its defect or None."""

    path: Path
    kind: str
    mask: Path | None = None

    @property
    def defective(self) -> bool:
        """Whether the part has a defect."""
        return self.kind != GOOD


def training_images(folder: Path) -> list[Path]:
    """Return the good images to train on: those below FOLDER/train/good, or those in FOLDER itself.

    Raises DatasetError where there is neither.
    """
    _check_folder(folder)
    good = folder / "train" / GOOD
    if good.is_dir():
        images, _ = list_images(good)
        if not images:
            raise DatasetError(f"there are no images in {str(good)!r}; put the good parts there")
        return images
    images = _own_images(folder)
    if (folder / "train").is_dir() or not images:
        raise DatasetError(
            f"{str(folder)!r} has no folder train/{GOOD} and no images of its own; "
            f"put the good parts into {str(good)!r}, or give a folder of good images"
        )
    return images


def labelled_images(folder: Path, split: str) -> list[LabelledImage]:
    """Return the images of FOLDER/split/KIND/, or FOLDER/KIND/ where FOLDER holds ``good``, or of a flat folder (good).

    split is ``val`` or ``test``. A defect's mask is ground_truth/KIND/NAME_mask.png or
    ground_truth/SPLIT/KIND/NAME_mask.png. Raises DatasetError where there are no images, or where some lie beside the
    kinds, so that it is not known what they show.
    """
    _check_folder(folder)
    root = folder / split
    if not root.is_dir():
        if (folder / GOOD).is_dir():
            root = folder
        elif images := _own_images(folder):
            return [LabelledImage(path, GOOD) for path in images]
        else:
            raise DatasetError(
                f"{str(folder)!r} has no folder {split!r}, no folder {GOOD!r} and no images of its own; "
                f"put labelled images into {str(root / GOOD)!r} and {str(root / 'DEFECT')!r}"
            )
    if stray := _own_images(root):
        raise DatasetError(
            f"{len(stray)} images lie in {str(root)!r} itself, such as {stray[0].name!r}; "
            f"move each into a folder with its kind's name, {GOOD!r} for good parts"
        )
    labelled = []
    for kind in sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")):
        if root == folder and kind.name in ("train", "val", "test", "ground_truth"):
            continue
        labelled += [
            LabelledImage(image, kind.name, _find_mask(folder, split, kind.name, image))
            for image in list_images(kind)[0]
        ]
    if not labelled:
        raise DatasetError(f"there are no images in the folders of {str(root)!r}")
    return labelled


def _find_mask(folder: Path, split: str, kind: str, image: Path) -> Path | None:
    truth = folder / "ground_truth"
    for parent in (truth / split / kind, truth / kind):
        mask = parent / f"{image.stem}_mask.png"
        if kind != GOOD and mask.is_file():
            return mask
    return None


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise DatasetError(f"{str(folder)!r} {what}; give a folder of images")
    list_images(folder)  # raises where a folder in it may not be read


def _own_images(folder: Path) -> list[Path]:
    return [path for path in list_images(folder)[0] if path.parent == folder]
