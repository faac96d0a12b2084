"""A table that says which images of a flat folder are good: labels.csv and its like."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from onspect.runtime.atomic import describe_os_error
from onspect.runtime.dataset.label_names import GOOD, is_bad, is_good
from onspect.runtime.errors import DatasetError

_NAMES = ("labels.csv", "label.csv", "annotations.csv", "classes.csv", "ground_truth.csv")
_FILE_COLUMNS = ("file", "filename", "file_name", "image", "image_name", "img", "path", "name")
_LABEL_COLUMNS = ("label", "class", "kind", "verdict", "defect", "category", "anomaly", "is_defect", "target", "result")
_GOOD_VALUES = ("0", "false", "none", "no", "")
_BAD_VALUES = ("1", "true", "yes")


def find_label_file(folder: Path) -> Path | None:
    """Return the table of labels of a folder, None where it has none."""
    try:
        found = {path.name.casefold(): path for path in folder.iterdir() if path.suffix.casefold() == ".csv"}
    except OSError:
        return None
    return next((found[name] for name in _NAMES if name in found), None)


def read_label_file(table: Path, images: Sequence[Path]) -> dict[Path, str]:
    """Return the kind of each image, ``good`` or a defect's name, by a table with a header.

    Raises DatasetError where the table cannot be read, has no columns of files and labels, or does not name an image:
    an image that nobody called good must not be taken for good.
    """
    try:
        text = table.read_text("utf-8-sig")
    except (OSError, UnicodeError) as error:
        reason = describe_os_error(error) if isinstance(error, OSError) else "it is not UTF-8"
        raise DatasetError(f"cannot read the labels in {str(table)!r}: {reason}; {_cure(table)}") from error
    separator = max(",;\t", key=text.partition("\n")[0].count)
    rows = [row for row in csv.reader(text.splitlines(), delimiter=separator) if any(row)]
    header = [cell.strip().casefold() for cell in rows[0]] if rows else []
    file_column = next((header.index(name) for name in _FILE_COLUMNS if name in header), None)
    label_column = next((header.index(name) for name in _LABEL_COLUMNS if name in header), None)
    if file_column is None or label_column is None or file_column == label_column:
        raise DatasetError(
            f"{str(table)!r} seems to say which images are good, and its columns {header} are not understood: "
            f"name them 'file' and 'label'; {_cure(table)}"
        )
    last = max(file_column, label_column)
    labels = {
        row[file_column].strip().replace("\\", "/").rpartition("/")[2]: row[label_column].strip()
        for row in rows[1:]
        if len(row) > last
    }
    missing = [path for path in images if path.name not in labels]
    if missing:
        raise DatasetError(
            f"{str(table)!r} does not say what {len(missing)} of {len(images)} images are, such as "
            f"{missing[0].name!r}; {_cure(table)}"
        )
    return {path: _read_kind(labels[path.name]) for path in images}


def _read_kind(label: str) -> str:
    if is_good(label) or label.casefold() in _GOOD_VALUES:
        return GOOD
    return "defective" if is_bad(label) or label.casefold() in _BAD_VALUES else label


def _cure(table: Path) -> str:
    return f"or move the images into folders {GOOD!r} and 'DEFECT' and {table.name!r} away"
