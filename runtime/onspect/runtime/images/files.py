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
"""Files with these endings (any case) are taken for images when a folder is read."""
_SYSTEM_FOLDERS = frozenset(
    {"@eadir", "@recycle", "#recycle", "#snapshot", "@recently-snapshot", "__macosx", "$recycle.bin", "lost+found"}
    | {"@__thumb", "@__qini", "@tmp", "@sharebin", "~snapshot", "network trash folder", "temporary items"}
    | {"system volume information", "recycler", "found.000", "thumb", "thumbs", "_thumbs", "thumbnail", "thumbnails"}
)
_MOST_KINDS = 8  # of files left out, that are named
_SYSTEM_FILES = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"})


def list_images(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the images below a folder and the files left out, both sorted, as `walk_files` finds them."""
    images: list[Path] = []
    others: list[Path] = []
    for path, is_image in walk_files(folder):
        (images if is_image else others).append(Path(path))
    return images, others


def walk_files(folder: Path) -> Iterator[tuple[str, bool]]:
    """Yield each file below a folder, sorted, and whether it is taken for an image.

    Images that are hidden, or in a hidden folder or one of a file server's own, such as thumbnails, are none; other
    hidden files and those of the operating system are not yielded. The paths are plain text, for there may be very
    many. A folder that links reach more than once is read once. Raises DatasetError where the folder, or one below it,
    is missing or may not be read: a folder that is silently skipped would be parts that nobody judged.
    """
    start = str(folder)
    return _walk("" if start == "." else start, set())


def list_folder(folder: Path | str) -> list[str]:
    """Return the images below a folder, sorted, as `walk_files` finds them; a warning names the files left out.

    Raises DatasetError as that does, and if there is no image.
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
    """Tell whether a file or folder is hidden or belongs to the system or a file server, by its name."""
    return name.startswith(".") or name.lower() in _SYSTEM_FOLDERS or name.lower() in _SYSTEM_FILES


def describe_left_out(others: Iterable[Path | str], folder: Path | str) -> str:
    """Return in words how many files of a folder are not taken for images, and of which kinds; empty for none.

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
    if real in seen:  # a link back to its own parent would go round for ever
        return
    seen.add(real)
    for name in _list_names(parent, hidden=hidden):
        path = os.path.join(parent, name)  # noqa: PTH118 - Path takes four times the memory
        mode = _read_mode(path)
        is_hidden = hidden or is_left_out(name)
        if stat.S_ISDIR(mode):
            yield from _walk(path, seen, hidden=is_hidden)
            continue
        # on a pipe, socket or device reading could wait for ever; a broken link is named, and becomes a fault
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
    """Return what kind of file a path leads to, 0 where it leads to none."""
    try:
        return os.stat(path).st_mode  # noqa: PTH116 - as above
    except OSError:
        return 0
