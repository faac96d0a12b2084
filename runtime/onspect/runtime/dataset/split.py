"""Split a folder of pictures into train, val and test. No part is in two splits, and train has no defect."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from onspect.runtime.atomic import describe_os_error, new_folder, writing
from onspect.runtime.dataset.folder import GOOD, LabelledImage, has_split, labelled_images
from onspect.runtime.dataset.groups import compile_group, find_group
from onspect.runtime.dataset.label_file import read_label_file
from onspect.runtime.dataset.label_names import SPLITS
from onspect.runtime.dataset.mask_files import part_masks
from onspect.runtime.errors import ChoiceError, DatasetError, OutputError
from onspect.runtime.fingerprints import fingerprint_bytes
from onspect.runtime.images.files import list_images
from onspect.runtime.progress import Progress, no_progress

_TRUTH = "ground_truth"
_UNSAFE = re.compile(r'[<>:"/\\|?*\x00-\x1f]')


@dataclass(frozen=True)
class PlacedImage:
    """A picture and its place in the new dataset."""

    image: LabelledImage
    """The picture in its folder, with its kind and masks."""

    split: str
    """``train``, ``val`` or ``test``."""

    name: str
    """File name in the new dataset. No two pictures have names that differ only in the ending."""


@dataclass(frozen=True)
class NamePatterns:
    """Patterns of file names, such as ``IMG_1*``, for the kinds of pictures."""

    good: tuple[str, ...] = ()
    """Patterns of pictures of good parts. A pattern of a defect that matches too takes precedence."""

    defects: tuple[tuple[str, str], ...] = ()
    """Pairs of a defect's name and a pattern."""

    def read_kind(self, name: str) -> str | None:
        """Return the kind of a picture by its file name.

        Parameters
        ----------
        name
            File name of the picture.

        Returns
        -------
        str or None
            ``good`` or the name of the defect; None if no pattern matches.

        Raises
        ------
        DatasetError
            If patterns of two defects match.
        """
        kinds = sorted({kind for kind, pattern in self.defects if fnmatchcase(name, pattern)})
        if len(kinds) > 1:
            raise DatasetError(
                f"{name!r} matches the patterns of {' and '.join(map(repr, kinds))}; make them exclusive"
            )
        if kinds:
            return kinds[0]
        return GOOD if any(fnmatchcase(name, pattern) for pattern in self.good) else None


def plan_split(
    folder: Path | str,
    *,
    labels: Path | str | None = None,
    patterns: NamePatterns | None = None,
    group: str | None = None,
    shares: tuple[float, float, float] = (60.0, 20.0, 20.0),
    seed: int = 0,
) -> list[PlacedImage]:
    """Choose the split of each picture of a folder. Nothing is written.

    Parameters
    ----------
    folder
        Pictures in one folder, or in one folder for each kind. Without `labels` and `patterns` the folder is
        read as `labelled_images` reads it: by names such as ``good_1.png``, a ``labels.csv``, masks, or
        folders.
    labels
        A CSV file with the columns ``file`` and ``label``.
    patterns
        Patterns of file names. A picture that no pattern matches is an error.
    group
        A regular expression, searched in the path below `folder`. Pictures with the same match, or the same
        captured groups, are kept in one split. Equal files are always kept together.
    shares
        Shares of train, val and test of the good pictures, 0 or more. Defective pictures, and good pictures of
        their groups, are divided between val and test in the ratio of their shares.
    seed
        The same seed and the same folder give the same split.

    Returns
    -------
    list[PlacedImage]
        Every picture with its split and its new name.

    Raises
    ------
    ChoiceError
        If the shares or the expression are not valid.
    DatasetError
        If it is not known what a picture shows, or there are too few groups.
    """
    if min(shares) < 0 or shares[0] <= 0 or not np.isfinite(sum(shares)):
        raise ChoiceError(f"the shares are {':'.join(f'{share:g}' for share in shares)}; give three such as 60:20:20")
    if labels is not None and patterns is not None:
        raise ChoiceError("a table of labels and patterns of names were given; give one of them")
    folder = Path(folder)
    images = _read_images(folder, labels if labels is None else Path(labels), patterns)
    groups = _group_images(folder, images, group)
    sides = _assign(groups, shares, np.random.default_rng(seed))
    names = _choose_names(folder, images)
    return [PlacedImage(image, sides[place], names[place]) for place, image in enumerate(images)]


def write_split(
    plan: Sequence[PlacedImage], output: Path | str, *, link: bool = False, progress: Progress | None = None
) -> None:
    """Write a planned dataset: ``train/good``, ``val/KIND``, ``test/KIND`` and the masks in ``ground_truth``.

    The folders appear when all files are complete. A failure or an interruption leaves no folder.

    Parameters
    ----------
    plan
        The pictures with their places.
    output
        The folder of the new dataset.
    link
        Whether to write symbolic links to the pictures instead of copies.
    progress
        Wraps the writing, for a progress bar.

    Raises
    ------
    OutputError
        If the output already has one of these folders, or cannot be written.
    """
    output = Path(output)
    taken = [name for name in (*SPLITS, _TRUTH) if (output / name).exists() or (output / name).is_symlink()]
    if taken:
        raise OutputError(
            f"{str(output / taken[0])!r} exists already, and nothing is overwritten; give another folder with -o"
        )
    with new_folder(output), _staging(output) as staging:
        for placed in (progress or no_progress)(plan, len(plan), "writing"):
            for source, place in _list_files(placed):
                _place(source, staging / place, link=link, shown=output / place)
        for name in (*SPLITS, _TRUTH):
            if (staging / name).exists():
                with writing(output / name):
                    (staging / name).rename(output / name)


def describe_split(plan: Iterable[PlacedImage]) -> str:
    """Return the number of pictures of each kind in each split, in one line.

    Parameters
    ----------
    plan
        The pictures with their places.

    Returns
    -------
    str
        Text such as ``train 6 good; test 2 good, 3 scratch``.

    Examples
    --------
    >>> image = LabelledImage(Path("a.png"), "good")
    >>> describe_split([PlacedImage(image, "train", "a.png"), PlacedImage(image, "val", "b.png")])
    'train 1 good; val 1 good'
    """
    counts: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
    for placed in plan:
        counts[placed.split][placed.image.kind] += 1
    sides = []
    for split, kinds in counts.items():
        good = kinds.pop(GOOD, 0)
        words = [f"{good} good"] if good else []
        words += (
            [f"{count} {kind}" for kind, count in sorted(kinds.items())]
            if len(kinds) <= 4
            else [f"{kinds.total()} defective of {len(kinds)} kinds"]
        )
        if words:
            sides.append(f"{split} {', '.join(words)}")
    return "; ".join(sides)


def _read_images(folder: Path, labels: Path | None, patterns: NamePatterns | None) -> list[LabelledImage]:
    for split in SPLITS:
        if folder.is_dir() and has_split(folder, split):
            raise DatasetError(
                f"{str(folder)!r} is split already: it has a folder {split!r}; give a folder without one"
            )
    if labels is None and patterns is None:
        return labelled_images(folder, "test")
    if not folder.is_dir():
        raise DatasetError(f"{str(folder)!r} is not a folder; give a folder of images")
    images, masks = part_masks(list_images(folder)[0])
    if not images:
        raise DatasetError(f"there are no images in {str(folder)!r}; give a folder of images")
    if labels is not None:
        _refuse_equal_names(folder, images, labels)
        kinds: Mapping[Path, str | None] = read_label_file(labels, images)
    else:
        assert patterns is not None
        kinds = {path: patterns.read_kind(path.name) for path in images}
    unknown = [path for path in images if kinds[path] is None]
    if unknown:
        raise DatasetError(
            f"no pattern matches {len(unknown)} of {len(images)} images in {str(folder)!r}, such as "
            f"{unknown[0].name!r}; give more patterns, such as --good '*' for the others"
        )
    return [
        LabelledImage(path, kind, None if kind == GOOD else masks.get(path)) for path, kind in kinds.items() if kind
    ]


def _refuse_equal_names(folder: Path, images: Sequence[Path], labels: Path) -> None:
    """Raise DatasetError if two images have the same name: the table names files without their folders."""
    name, count = Counter(path.name for path in images).most_common(1)[0]
    if count > 1:
        raise DatasetError(
            f"{count} images below {str(folder)!r} are called {name!r}, and {str(labels)!r} names files without their "
            "folders; give each image its own name"
        )


def _group_images(folder: Path, images: Sequence[LabelledImage], pattern: str | None) -> list[list[tuple[int, str]]]:
    """Return the groups that stay together, each a list of places and kinds, in the order of their first image."""
    expression = None if pattern is None else compile_group(pattern)
    owner = list(range(len(images)))

    def find(place: int) -> int:
        while owner[place] != place:
            owner[place] = owner[owner[place]]
            place = owner[place]
        return place

    first: dict[object, int] = {}
    for place, image in enumerate(images):
        keys: list[object] = [("content", fingerprint_bytes(_read(image.path)))]
        if expression is not None:
            keys.append(("name", find_group(expression, image.path.relative_to(folder))))
        for key in keys:
            other = first.setdefault(key, place)
            if key == keys[0] and images[other].defective != image.defective:
                raise DatasetError(
                    f"{str(images[other].path)!r} ({images[other].kind}) and {str(image.path)!r} ({image.kind}) are "
                    "equal files; remove the one that is wrong"
                )
            owner[find(place)] = find(other)
    groups: dict[int, list[tuple[int, str]]] = defaultdict(list)
    for place, image in enumerate(images):
        groups[find(place)].append((place, image.kind))
    return list(groups.values())


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DatasetError(f"cannot read {str(path)!r}: {describe_os_error(error)}; remove or replace it") from error


def _assign(
    groups: Sequence[Sequence[tuple[int, str]]], shares: tuple[float, float, float], random: np.random.Generator
) -> dict[int, str]:
    """Return the split of each place. Each group goes to the split that lacks most pictures, large groups first.

    Groups with defects come first and never go to train.
    """
    sides = dict(zip(SPLITS, shares, strict=True))
    order = [groups[place] for place in random.permutation(len(groups))]
    order.sort(key=lambda group: (all(kind == GOOD for _, kind in group), -len(group)))
    totals = Counter(kind for group in groups for _, kind in group)
    given: dict[str, Counter[str]] = {side: Counter() for side in sides}
    assigned: dict[int, str] = {}
    for number, group in enumerate(order):
        kinds = Counter(kind for _, kind in group if kind != GOOD)
        kind = kinds.most_common(1)[0][0] if kinds else GOOD
        open_sides = {side: share for side, share in sides.items() if share and (side != "train" or not kinds)}
        if not open_sides:
            raise DatasetError("defective images need a share of val or test; give shares such as 60:20:20")
        empty = [side for side in open_sides if not given[side][GOOD]]
        if not kinds and len(empty) >= len(order) - number:  # the last groups go to splits without a good picture
            open_sides = {side: sides[side] for side in empty}
        whole = sum(open_sides.values())
        missing = {side: totals[kind] * share / whole - given[side][kind] for side, share in open_sides.items()}
        side = max(missing, key=lambda side: missing[side])
        given[side].update(kind for _, kind in group)
        assigned.update((place, side) for place, _ in group)
    empty = [side for side, share in sides.items() if share and not given[side][GOOD]]
    if empty:
        raise DatasetError(
            f"there are too few good images for {empty[0]}: {totals[GOOD]} in {len(groups)} groups of pictures of one "
            f"part; take more pictures, or give {empty[0]} no share"
        )
    return assigned


def _choose_names(folder: Path, images: Sequence[LabelledImage]) -> list[str]:
    """Return a file name for each image: its own, or one with its folders if another image has the same name."""

    def key(name: str) -> str:
        return unicodedata.normalize("NFC", Path(name).stem).casefold()

    counts = Counter(key(image.path.name) for image in images)
    names: list[str] = []
    taken: set[str] = set()
    for image in images:
        name = image.path.name
        if counts[key(name)] > 1:
            name = _UNSAFE.sub("_", "_".join(image.path.relative_to(folder).parts))
        stem, number = Path(name).stem, 2
        while key(name) in taken:
            name, number = f"{stem}_{number}{image.path.suffix}", number + 1
        taken.add(key(name))
        names.append(name)
    return names


@contextmanager
def _staging(output: Path) -> Iterator[Path]:
    """Give a hidden folder inside the output. It is removed at the end with its content."""
    staging = output / f".onspect-split-{secrets.token_hex(8)}"
    with writing(output):
        staging.mkdir()
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _list_files(placed: PlacedImage) -> Iterator[tuple[Path, Path]]:
    """Yield a picture and its masks, each with its place in the new dataset."""
    image, name = placed.image, Path(placed.name)
    kind = _UNSAFE.sub("_", image.kind)
    yield image.path, Path(placed.split, kind, name)
    masks = [mask for mask in (image.mask, *image.further_masks) if mask is not None]
    truth = Path(_TRUTH, placed.split, kind)
    if len(masks) == 1:
        yield masks[0], truth / f"{name.stem}_mask{masks[0].suffix}"
    for number, mask in enumerate(masks if len(masks) > 1 else []):
        yield mask, truth / name.stem / f"{number:03d}{mask.suffix}"


def _place(source: Path, target: Path, *, link: bool, shown: Path) -> None:
    """Copy or link a file; messages name the shown path."""
    content = b"" if link else _read(source)
    with writing(shown):
        target.parent.mkdir(parents=True, exist_ok=True)
        if link:
            target.symlink_to(os.path.abspath(source))  # noqa: PTH100 - Path.absolute leaves .. in it
        else:
            target.write_bytes(content)
