"""Annotations in the formats of LabelMe, COCO, Pascal VOC and YOLO. They are not read as masks."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

_MOST = 1 << 26  # bytes of the largest file that is read
_YOLO = re.compile(r"\s*\d+(?:[ \t]+[\d.eE+-]+){4,}\s*")


def find_annotated(images: Sequence[Path], others: Iterable[Path]) -> dict[Path, Path]:
    """Find the images in which an annotation file marks something.

    A file belongs to the image of the same name; a COCO file names its images. Files of other content are ignored.

    Parameters
    ----------
    images
        The images.
    others
        Files beside the images.

    Returns
    -------
    dict[Path, Path]
        Each marked image with its annotation file.
    """
    by_stem = {path.with_suffix(""): path for path in images}
    by_name = {path.name: path for path in images}
    found: dict[Path, Path] = {}
    for other in others:
        ending, own = other.suffix.lower(), by_stem.get(other.with_suffix(""))
        if ending == ".json":
            found |= {by_name[name]: other for name in _list_marked(other, own) if name in by_name}
        elif own is not None and ending in (".xml", ".txt") and _marks(_read_text(other), ending):
            found[own] = other
    return found


def _marks(text: str, ending: str) -> bool:
    if ending == ".xml":
        return "<annotation" in text and "<object" in text
    lines = [line for line in text.splitlines() if line.strip()]
    return bool(lines) and all(_YOLO.fullmatch(line) for line in lines)


def _list_marked(path: Path, own: Path | None) -> list[str]:
    """Return the names of the images in which a JSON file marks something."""
    try:
        content: Any = json.loads(_read_text(path))
    except ValueError:  # not JSON, such as a file of the camera
        return []
    if not isinstance(content, dict):
        return []
    if own is not None and isinstance(content.get("shapes"), list):
        return [own.name] if content["shapes"] else []
    marks, images = content.get("annotations"), content.get("images")
    if not isinstance(marks, list) or not isinstance(images, list):
        return []
    marked = {mark.get("image_id") for mark in marks if isinstance(mark, dict)}
    listed = [image for image in images if isinstance(image, dict) and image.get("id") in marked]
    return [Path(str(image.get("file_name", "")).replace("\\", "/")).name for image in listed]


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace") if path.stat().st_size <= _MOST else ""
    except OSError:  # the file is ignored
        return ""
