"""The masks of images, by their file names."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from onspect.runtime.dataset.label_names import strip_mask_addition, strip_mask_ending
from onspect.runtime.images.files import list_images

_NEVER_MASKS = frozenset({".jpg", ".jpeg", ".jfif", ".jpe"})


class TruthFolder:
    """A folder of masks: NAME_mask.png, NAME.png, or a folder NAME with several (MVTec LOCO), in any image format."""

    def __init__(self, folder: Path) -> None:
        self._masks: dict[str, list[Path]] = defaultdict(list)
        images, _ = list_images(folder)
        self.files = len(images)
        self.example = images[0] if images else folder
        for path in images:
            relative = path.relative_to(folder)
            self._masks[_key(relative.parent / (strip_mask_addition(path.stem) or path.stem))].append(path)
            if relative.parent != Path():
                self._masks[_key(relative.parent)].append(path)

    def find(self, image: Path, kind: Path) -> tuple[Path, ...]:
        """Find the masks of an image.

        Parameters
        ----------
        image
            The image file.
        kind
            The folder of its kind.

        Returns
        -------
        tuple[Path, ...]
            The masks, empty without any.
        """
        relative = image.relative_to(kind)
        found = self._masks.get(_key(relative.parent / image.stem)) or self._masks.get(_key(Path(image.stem)))
        return tuple(sorted(set(found or ())))


def part_masks(paths: Sequence[Path]) -> tuple[list[Path], dict[Path, Path]]:
    """Separate images from masks among the files of one folder tree.

    A mask has the name of its image with ``_mask``, ``_GT`` or ``_label`` behind or before it. Beside a JPEG file
    it may have the same name with another ending (Real-IAD).

    Parameters
    ----------
    paths
        The files.

    Returns
    -------
    tuple[list[Path], dict[Path, Path]]
        The images, and the mask of each image that has one.
    """
    by_name = {_key(path.with_suffix("")): path for path in paths}
    jpegs = {_key(path.with_suffix("")): path for path in paths if path.suffix.lower() in _NEVER_MASKS}
    masks: dict[Path, Path] = {}
    images = []
    for path in paths:
        base = strip_mask_addition(path.stem)
        owner = None if base is None else by_name.get(_key(path.with_name(base)))
        if owner is None and path.suffix.lower() not in _NEVER_MASKS:
            owner = jpegs.get(_key(path.with_suffix("")))
        if owner is None or owner == path:
            images.append(path)
        else:
            masks[owner] = path
    return images, masks


def name_orphans(paths: Iterable[Path]) -> list[Path]:
    """Return the files that are named like masks.

    Parameters
    ----------
    paths
        Files that are not the mask of an image.

    Returns
    -------
    list[Path]
        The files whose names end with ``_mask`` or a similar word.
    """
    return [path for path in paths if strip_mask_ending(path.stem) is not None]


def _key(path: Path) -> str:
    return unicodedata.normalize("NFC", str(path)).casefold()
