"""Image files in folders."""

from __future__ import annotations

import logging
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from onspect.runtime.atomic import describe_os_error
from onspect.runtime.errors import DatasetError

_LOG = logging.getLogger("onspect")

IMAGE_SUFFIXES = frozenset(
    {".bmp", ".dib", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)
"""Endings of image files (in any case) when a folder is read."""
_SYSTEM_FOLDERS = frozenset(
    {"@eadir", "@recycle", "#recycle", "#snapshot", "@recently-snapshot", "__macosx", "$recycle.bin", "lost+found"}
    | {"@__thumb", "@__qini", "@tmp", "@sharebin", "~snapshot", "network trash folder", "temporary items"}
    | {"system volume information", "recycler", "found.000", "thumb", "thumbs", "_thumbs", "thumbnail", "thumbnails"}
)
_MOST_KINDS = 8  # largest number of kinds of ignored files in a message
_SYSTEM_FILES = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"})


def list_images(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the images below a folder and the ignored files.

    Parameters
    ----------
    folder
        The folder.

    Returns
    -------
    tuple[list[Path], list[Path]]
        Images and other files, both sorted, as `walk_files` finds them.

    Raises
    ------
    DatasetError
        If a folder is missing or may not be read.
    """
    images: list[Path] = []
    others: list[Path] = []
    for path, is_image in walk_files(folder):
        (images if is_image else others).append(Path(path))
    return images, others


def walk_files(folder: Path) -> Iterator[tuple[str, bool]]:
    """Yield each file below a folder, sorted, and whether it is an image.

    Hidden images do not count as images, nor do images in a hidden folder or in a folder of a file server, such as
    thumbnails. Other hidden files and files of the operating system are left out. The paths are plain text, because
    there may be very many. A folder that several links reach is read once. A folder that cannot be read is an error,
    because its parts would not be judged.

    Parameters
    ----------
    folder
        The folder.

    Returns
    -------
    Iterator[tuple[str, bool]]
        Path, and whether it is an image.

    Raises
    ------
    DatasetError
        If the folder, or one below it, is missing or may not be read.
    """
    start = str(folder)
    return _walk("" if start == "." else start, set())


def list_folder(folder: Path | str) -> list[str]:
    """Return the images below a folder; a warning names the ignored files.

    Parameters
    ----------
    folder
        The folder.

    Returns
    -------
    list[str]
        Paths, sorted, as `walk_files` finds them.

    Raises
    ------
    DatasetError
        If there is no image, or a folder is missing or may not be read.
    """
    images: list[str] = []
    others: list[str] = []
    for path, is_image in walk_files(Path(folder)):
        (images if is_image else others).append(path)
    words = describe_left_out(others, folder)
    if not images:
        raise DatasetError(
            f"there are no images in {str(folder)!r} (left out: {words or '0 other files'}); check the path"
        )
    if words:
        _LOG.warning("left out in %r: %s", str(folder), words)
    return images


def is_left_out(name: str) -> bool:
    """Return whether a file or folder is hidden or belongs to the system or a file server.

    Parameters
    ----------
    name
        Name without its folder.

    Returns
    -------
    bool
        True if it is left out.
    """
    return name.startswith(".") or name.lower() in _SYSTEM_FOLDERS or name.lower() in _SYSTEM_FILES


def describe_left_out(others: Iterable[Path | str], folder: Path | str) -> str:
    """Describe the number and kinds of the ignored files of a folder.

    Parameters
    ----------
    others
        Paths of the files.
    folder
        The folder.

    Returns
    -------
    str
        The description; empty without files.

    Examples
    --------
    >>> describe_left_out(["a/b.txt", "a/c.txt", "a/@eaDir/c.png/SYNOPHOTO_THUMB_M.jpg"], "a")
    "3 files (.txt: 2, in '@eaDir': 1)"
    """
    kinds: Counter[str] = Counter()
    for path in others:
        relative = Path(os.path.relpath(path, folder)).parts
        system = next((part for part in relative[:-1] if is_left_out(part)), None)
        name = Path(path).name
        kinds[f"in {system!r}" if system else "hidden" if is_left_out(name) else Path(path).suffix or name] += 1
    if not kinds:
        return ""
    named = ", ".join(f"{kind}: {count}" for kind, count in kinds.most_common(_MOST_KINDS))
    return f"{kinds.total()} file{'s' * (kinds.total() != 1)} ({named}{', ...' if len(kinds) > _MOST_KINDS else ''})"


def _walk(parent: str, seen: set[str], *, hidden: bool = False) -> Iterator[tuple[str, bool]]:
    real = os.path.realpath(parent)
    if real in seen:  # a link back to its own parent would never end
        return
    seen.add(real)
    for name in _list_names(parent, hidden=hidden):
        path = os.path.join(parent, name)  # noqa: PTH118 - Path takes four times the memory
        mode = _read_mode(path)
        is_hidden = hidden or is_left_out(name)
        if stat.S_ISDIR(mode):
            yield from _walk(path, seen, hidden=is_hidden)
            continue
        # reading a pipe, socket or device could block; a broken link is listed and becomes a fault
        ending = os.path.splitext(name)[1].lower()  # noqa: PTH122 - as above
        is_image = ending in IMAGE_SUFFIXES and (mode == 0 or stat.S_ISREG(mode))
        if is_image or not is_hidden:
            yield path, is_image and not is_hidden


def _list_names(folder: str, *, hidden: bool) -> list[str]:
    try:
        names = os.listdir(folder or ".")  # noqa: PTH208 - as above
    except OSError as error:
        if hidden:
            return []
        raise DatasetError(
            f"cannot read the folder {str(error.filename)!r}: {describe_os_error(error)}; "
            "check the path and the permission to read it"
        ) from error
    return sorted(names, key=os.path.normcase)


def _read_mode(path: str) -> int:
    """Return the kind of the file that a path leads to, or 0 if there is none."""
    try:
        return os.stat(path).st_mode  # noqa: PTH116 - as above
    except OSError:
        return 0
