"""Which file is the mask of which image."""

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
        """Return the masks of an image of the folder kind; empty where it has none."""
        relative = image.relative_to(kind)
        found = self._masks.get(_key(relative.parent / image.stem)) or self._masks.get(_key(Path(image.stem)))
        return tuple(sorted(set(found or ())))


def part_masks(paths: Sequence[Path]) -> tuple[list[Path], dict[Path, Path]]:
    """Return the images among files of one folder tree, and the masks that lie beside images, by their image.

    A mask has its image's name with ``_mask``, ``_GT`` or ``_label`` behind it or before it, or the same name with
    another ending where the image is a JPEG file (Real-IAD).
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
    """Return files that are named as masks are, and of which there is no image."""
    return [path for path in paths if strip_mask_ending(path.stem) is not None]


def _key(path: Path) -> str:
    return unicodedata.normalize("NFC", str(path)).casefold()
