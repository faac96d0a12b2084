"""A dataset is a folder with training images, labelled images and masks.

These layouts are read: MVTec AD, MVTec LOCO, MVTec AD 2, VisA, BTAD, Real-IAD, Kolektor, and a folder for each kind. In
flat folders the names, masks or a labels.csv say which images are good. Files that are left out are counted in one
warning.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from onspect.runtime.dataset.annotations import find_annotated
from onspect.runtime.dataset.label_file import find_label_file, find_other_labels, look_up_labels, read_label_file
from onspect.runtime.dataset.label_names import (
    GOOD,
    SPLITS,
    is_bad,
    is_good,
    is_named_as_mask,
    is_no_kind,
    is_split,
    is_truth,
    may_be_truth,
    plain,
    read_label,
    seems_good,
)
from onspect.runtime.dataset.mask_files import TruthFolder, name_orphans, part_masks
from onspect.runtime.errors import DatasetError, ImageError
from onspect.runtime.images.files import describe_left_out, list_images

__all__ = ["GOOD", "LabelledImage", "has_split", "labelled_images", "training_images"]

_LOG = logging.getLogger("onspect")


@dataclass(frozen=True)
class LabelledImage:
    """An image with its label."""

    path: Path
    """The image file."""

    kind: str
    """``good`` or the name of the defect."""

    mask: Path | None = None
    """Mask of the defect, None without one."""

    further_masks: tuple[Path, ...] = ()
    """More masks of the same image, as in MVTec LOCO."""

    @property
    def defective(self) -> bool:
        """Whether the part has a defect."""
        return self.kind != GOOD


def training_images(folder: Path) -> list[Path]:
    """Return the good images to train on: those in FOLDER/train, in FOLDER/good, or in FOLDER itself.

    Images that a folder, name, mask or table calls defective are left out.

    Parameters
    ----------
    folder
        The dataset.

    Returns
    -------
    list[Path]
        The image files, at least one.

    Raises
    ------
    DatasetError
        If there are no good images, or it is not known which images are good.
    """
    _check_folder(folder)
    split = _find_split(folder, "train")
    good = _good_of(split) if split is not None else _good_of(folder)
    found = _read_root(folder, split or folder, "train")
    bad = [image.path for image in found if image.defective or _is_called_bad(image.path.relative_to(folder))]
    images = [path for path in (image.path for image in found) if path not in set(bad)]
    if bad:
        verb, pronoun = ("is", "it is") if len(bad) == 1 else ("are", "they are")
        words = "%d of %d images %s left out of training, because %s not called good, such as %r"
        _LOG.warning(words, len(bad), len(found), verb, pronoun, str(bad[0]))
    if images:
        return images
    if good is not None or (split is not None and not _own_images(folder)):
        raise DatasetError(f"there are no good images in {str(good or split)!r}; put the good parts there")
    wanted = folder / "train" / GOOD
    raise DatasetError(
        f"{str(folder)!r} has no folder train/{GOOD} and no good images of its own; {_suggest_dataset(folder)}"
        f"put the good parts into {str(wanted)!r}, or give a folder of good images"
    )


def has_split(folder: Path, split: str) -> bool:
    """Return whether a dataset has a folder for a split, under one of its names.

    Parameters
    ----------
    folder
        The dataset.
    split
        ``train``, ``val`` or ``test``.

    Returns
    -------
    bool
        True if there is such a folder.

    Raises
    ------
    DatasetError
        If several folders with images have names for the split.
    """
    return _find_split(folder, split) is not None


def labelled_images(folder: Path, split: str) -> list[LabelledImage]:
    """Return the labelled images of a split, of a folder of kinds, or of a flat folder.

    They are in FOLDER/split/KIND, in FOLDER/KIND if FOLDER has ``good``, or in FOLDER itself (all good). Masks are
    beside the images, or in a folder ``ground_truth`` of the dataset or the split.

    Parameters
    ----------
    folder
        The dataset.
    split
        ``val`` or ``test``. The names ``validation`` and ``test_public`` are read too.

    Returns
    -------
    list[LabelledImage]
        The images with their kinds and masks.

    Raises
    ------
    DatasetError
        If there are no images, or it is not known what some of them show.
    """
    _check_folder(folder)
    root = _find_split(folder, split) or folder
    images = _read_root(folder, root, split)
    if not images:
        if root == folder and not _own_images(folder):
            places = f"{str(folder / split / GOOD)!r} and {str(folder / split / 'DEFECT')!r}"
            raise DatasetError(
                f"{str(folder)!r} has no folder {split!r}, no folder {GOOD!r} and no images of its own; "
                f"{_suggest_dataset(folder)}put labelled images into {places}"
            )
        raise DatasetError(f"there are no images in the folders of {str(root)!r}; put labelled images there")
    return images


def _suggest_dataset(folder: Path) -> str:
    """Return the folders in this one that look like datasets, as the beginning of a remedy.

    Empty if there is no such folder.
    """
    found = [
        path
        for path in _subfolders(folder)
        if not is_split(path.name)
        and (any(has_split(path, split) for split in SPLITS) or _good_of(path) or (path / "Data" / "Images").is_dir())
    ]
    return f"give {' or '.join(repr(str(path)) for path in found[:3])}, or " if found else ""


def _read_root(folder: Path, root: Path, split: str) -> list[LabelledImage]:
    """Return the images of a split's folder, or of a folder without splits, and warn of files that are left out."""
    visa = root / "Data" / "Images"
    if root == folder and visa.is_dir():
        return _read_kinds(folder, visa, split, [folder / "Data" / "Masks"])
    good = _good_of(root)
    own = _own_images(root)
    if good is None and (own or root == folder):
        labelled = _read_flat(folder, root, own, split)
        if labelled is not None:
            return labelled
    if own:
        raise DatasetError(
            f"{len(own)} image{'s' * (len(own) != 1)} in {str(root)!r} itself, such as {own[0].name!r}, "
            f"{'have' if len(own) != 1 else 'has'} no kind; move each into a folder with its kind's name, {GOOD!r} for "
            "good parts"
        )
    if root == folder and good is None:
        return []
    truths = [path for path in (*_subfolders(root), *_subfolders(folder)) if is_truth(path.name)]
    return _read_kinds(folder, root, split, truths)


def _read_kinds(folder: Path, root: Path, split: str, truths: Sequence[Path]) -> list[LabelledImage]:
    """Return the images of a folder with one folder for each kind."""
    labelled: list[LabelledImage] = []
    left_out: list[Path] = []
    empty: list[str] = []
    skipped = [path.name for path in _subfolders(root) if is_no_kind(path.name) and list_images(path)[0]]
    found_masks, files, example = 0, 0, Path()
    for kind, place in _list_kinds(folder, root):
        paths, others = list_images(place)
        inner = [path for path in _subfolders(place) if may_be_truth(path.name)] if _own_images(place) else []
        images, beside = part_masks([path for path in paths if not any(path.is_relative_to(one) for one in inner)])
        left_out += others
        if not images:
            empty.append(place.name)
        if kind == GOOD:  # masks of good images are ignored
            _refuse_orphans(folder, place, images, [path for path in images if is_named_as_mask(path.stem)])
            _refuse_annotated(images, others)
            if split != "train":
                _warn_of_bad_names(place, images)
            labelled += [LabelledImage(path, GOOD) for path in images]
            continue
        _refuse_orphans(folder, place, images, name_orphans(images))
        masks = [TruthFolder(path) for path in _truth_places(truths, split, place.relative_to(root))]
        masks += [TruthFolder(path) for path in inner]
        for path in images:
            found = (beside[path],) if path in beside else next(filter(None, (m.find(path, place) for m in masks)), ())
            labelled.append(LabelledImage(path, kind, found[0] if found else None, tuple(found[1:])))
            found_masks += bool(found)
        files += sum(mask.files for mask in masks)
        example = next((mask.example for mask in masks if mask.files), example)
    _warn_of_left_out(root, left_out, empty, skipped)
    if not files and any(image.defective for image in labelled):
        unplaced = [path for truth in truths if truth.is_dir() for path in list_images(truth)[0]]
        files, example = len(unplaced), next(iter(unplaced), example)
    if files and not found_masks and split != "train":
        _LOG.warning(
            "in ground_truth %s no image, such as %r: name masks NAME_mask.png",
            "1 file matches" if files == 1 else f"{files} files match",
            str(example),
        )
    _hold_against_table(folder, root, labelled)
    return labelled


def _refuse_orphans(folder: Path, place: Path, images: Sequence[Path], orphans: Sequence[Path]) -> None:
    """Raise DatasetError if files are named like masks and have no image."""
    if orphans:
        is_one = len(orphans) == 1
        verb, has = ("is named as a mask is", "has") if is_one else ("are named as masks are", "have")
        raise DatasetError(
            f"{len(orphans)} of {len(images)} files in {str(place)!r} {verb}, such as {orphans[0].name!r}, and {has} "
            f"no image beside {'it' if is_one else 'them'}; move masks into {str(folder / 'ground_truth')!r}"
        )


def _refuse_annotated(images: Sequence[Path], others: Sequence[Path]) -> None:
    """Raise DatasetError if annotations, which are not read, mark something in images that would count as good."""
    found = find_annotated(images, others)
    if found:
        path, file = min(found.items())
        verb = "has an annotation that is" if len(found) == 1 else "have annotations that are"
        raise DatasetError(
            f"{len(found)} of {len(images)} images in {str(path.parent)!r} {verb} not read, such as {path.name!r} in "
            f"{file.name!r}; save masks NAME_mask.png, or move annotated images into a folder 'DEFECT'"
        )


def _warn_of_bad_names(place: Path, images: Sequence[Path]) -> None:
    bad = [path for path in images if _is_called_bad(path.relative_to(place))]
    if bad:
        _LOG.warning(
            "%d of %d images in %r count as good, but their names or folders call them bad, such as %r",
            len(bad),
            len(images),
            str(place),
            str(bad[0]),
        )


def _hold_against_table(folder: Path, root: Path, labelled: Sequence[LabelledImage]) -> None:
    """Raise DatasetError if a table calls an image defective that is in the folder of good images."""
    table = find_label_file(root) or find_label_file(folder)
    if table is None:
        return
    good = [image.path for image in labelled if not image.defective]
    try:
        kinds = look_up_labels(table, good)
    except DatasetError:
        _LOG.warning("%r is not read: folders say which images are good", str(table))
        return
    wrong = [path for path in good if kinds.get(path, GOOD) != GOOD]
    if wrong:
        raise DatasetError(
            f"{str(table)!r} calls {len(wrong)} of {len(good)} images among the good ones {kinds[wrong[0]]!r}, such as "
            f"{str(wrong[0])!r}; move them, or correct the table"
        )


def _list_kinds(folder: Path, root: Path) -> list[tuple[str, Path]]:
    """Return the kinds of a folder with their folders.

    A folder of defects that has only folders gives one kind for each of them.
    """
    kinds: list[tuple[str, Path]] = []
    good = [path for path in _subfolders(root) if is_good(path.name)]
    if len(good) > 1:
        names = " and ".join(repr(path.name) for path in good)
        raise DatasetError(
            f"{str(root)!r} has the folders {names}: is each of them the folder {GOOD!r}? Make one of them"
        )
    for path in _subfolders(root):
        if is_truth(path.name) or is_no_kind(path.name) or (root == folder and is_split(path.name)):
            continue
        if is_good(path.name):
            if path.name != GOOD:
                _LOG.warning("%r is read as the folder %r", str(path), GOOD)
            kinds.append((GOOD, path))
        elif seems_good(path.name):
            raise DatasetError(f"is {str(path)!r} the folder {GOOD!r}? Rename it to {GOOD!r}, or to the defect's name")
        elif is_bad(path.name) and (inner := _subfolders(path)) and not _own_images(path):
            kinds += [(place.name, place) for place in inner if not is_truth(place.name)]
        else:
            kinds.append((path.name, path))
    return kinds


def _truth_places(truths: Sequence[Path], split: str, kind: Path) -> list[Path]:
    """Return the folders that may have masks of a kind."""
    found = []
    for truth in truths:
        for names in (*SPLITS.get(split, ()), ""):
            for place in (truth / names / kind, truth / names / kind.name):
                actual = _find_folder(place)
                if actual is not None and actual not in found:
                    found.append(actual)
    return found


def _read_flat(folder: Path, root: Path, own: Sequence[Path], split: str) -> list[LabelledImage] | None:
    """Return the images of a flat folder by its table, masks or names, or all as good. None if the folder is not flat.

    Kolektor's first dataset has folders of images with their masks beside them. They are read as flat too.
    """
    images, masks = part_masks(own)
    if not own:
        everything, _ = list_images(root)
        images, masks = part_masks(everything)
        if not masks or len(images) > 2 * len(masks) or any(is_split(path.name) for path in _subfolders(root)):
            return None
    _refuse_orphans(folder, root, images, [path for path in images if is_named_as_mask(path.stem)])
    truths = [path for path in _subfolders(root) if may_be_truth(path.name)] if own else []
    further = _find_masks(folder, root, images, split, truths)
    masks = {path: found[0] for path, found in further.items()} | masks
    table = find_label_file(root)
    if table is None and root != folder:
        table = find_label_file(folder)
        table = table if table is not None and look_up_labels(table, images) else None
    others = [path for path in list_images(root)[1] if path != table]
    _warn_of_left_out(root, others, [], _describe_folders(root, images, truths))
    if table is not None:
        kinds = read_label_file(table, images)
        return [LabelledImage(path, kinds[path], masks.get(path) if kinds[path] != GOOD else None) for path in images]
    if not masks:
        _refuse_annotated(images, others)
    if unread := find_other_labels(others):
        _LOG.warning("%r may say which images are good, but is not read: save it as labels.csv", str(unread[0]))
    if masks:
        marked = {path: mask for path, mask in masks.items() if _marks(mask)}
        return [
            LabelledImage(
                path,
                "defective" if path in marked or read_label(path.stem) is False else GOOD,
                marked.get(path),
                tuple(further.get(path, ())[1:]) if path in marked else (),
            )
            for path in images
        ]
    labels = {path: read_label(path.stem) for path in images}
    if not any(label is False for label in labels.values()):
        return [LabelledImage(path, GOOD) for path in images]
    unknown = [path for path, label in labels.items() if label is None]
    if unknown and any(label for label in labels.values()):
        raise DatasetError(
            f"{len(unknown)} of {len(images)} images in {str(root)!r} are called neither good nor bad, such as "
            f"{unknown[0].name!r}; move each image into a folder with its kind's name, {GOOD!r} for good parts"
        )
    bad = sum(label is False for label in labels.values())
    _LOG.info("%d of %d images in %r are called bad by their names", bad, len(images), str(root))
    return [LabelledImage(path, "bad" if label is False else GOOD) for path, label in labels.items()]


def _find_masks(
    folder: Path, root: Path, images: Sequence[Path], split: str, truths: Sequence[Path]
) -> dict[Path, tuple[Path, ...]]:
    """Return the masks of a flat folder's images, from folders of masks in it or beside it."""
    beside = [path for path in _subfolders(folder) if is_truth(path.name)] if root != folder else []
    folders = [TruthFolder(path) for path in (*truths, *_truth_places(beside, split, Path()))]
    found = {path: next(filter(None, (one.find(path, root) for one in folders)), ()) for path in images}
    if folders and any(one.files for one in folders) and not any(found.values()) and split != "train":
        _LOG.warning("the masks in %r match no image: name them NAME_mask.png", str(folders[0].example.parent))
    return {path: masks for path, masks in found.items() if masks}


def _marks(mask: Path) -> bool:
    """Return whether a mask marks anything. True if it cannot be read."""
    from onspect.runtime.images.decode import read_image

    try:
        return bool(read_image(mask).any())
    except ImageError:
        return True


def _is_called_bad(path: Path) -> bool:
    return read_label(path.stem) is False or any(is_bad(name) or read_label(name) is False for name in path.parts[:-1])


def _describe_folders(root: Path, images: Sequence[Path], truths: Sequence[Path]) -> list[str]:
    """Return the names of the folders with images that are left out when a folder is read as flat."""
    if any(path.parent != root for path in images):
        return []
    folders = [path for path in _subfolders(root) if path not in truths and not is_split(path.name)]
    return [path.name for path in folders if list_images(path)[0]]


def _warn_of_left_out(root: Path, others: Sequence[Path], empty: Sequence[str], folders: Sequence[str] = ()) -> None:
    facts = [words] if (words := describe_left_out(others, root)) else []
    facts += [f"folder{'s' * (len(empty) != 1)} without images: {', '.join(map(repr, empty))}"] if empty else []
    facts += [f"folder{'s' * (len(folders) != 1)} not looked into: {', '.join(map(repr, folders))}"] if folders else []
    if facts:
        _LOG.warning("left out in %r: %s", str(root), "; ".join(facts))


def _find_split(folder: Path, split: str) -> Path | None:
    names = [plain(name) for name in SPLITS[split]]
    found = [path for path in _subfolders(folder) if plain(path.name) in names]
    full = [path for path in found if list_images(path)[0]] if len(found) > 1 else found
    if len(full) > 1:
        listed = " and ".join(repr(path.name) for path in full)
        raise DatasetError(f"{str(folder)!r} has the folders {listed}, each of them for {split}; make one of them")
    return min(found, key=lambda path: (names.index(plain(path.name)), path.name), default=None)


def _find_folder(path: Path) -> Path | None:
    """Return a folder by its name without regard to case and Unicode form; None if it does not exist."""
    if path.is_dir():
        return path
    return next((other for other in _subfolders(path.parent) if plain(other.name) == plain(path.name)), None)


def _good_of(root: Path) -> Path | None:
    return next((path for path in _subfolders(root) if is_good(path.name) or seems_good(path.name)), None)


def _subfolders(folder: Path) -> list[Path]:
    from onspect.runtime.images.files import is_left_out

    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not is_left_out(path.name))
    except OSError:
        return []


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise DatasetError(f"{str(folder)!r} {what}; give a folder of images")
    list_images(folder)  # raises if a folder in it is not readable


def _own_images(folder: Path) -> list[Path]:
    paths: Iterable[Path] = list_images(folder)[0]
    return [path for path in paths if path.parent == folder]
