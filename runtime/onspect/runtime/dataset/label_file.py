"""A table that says which images of a folder are good: labels.csv and its like."""

from __future__ import annotations

import codecs
import csv
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from onspect.runtime.atomic import describe_os_error
from onspect.runtime.dataset.label_names import GOOD, is_bad, is_good
from onspect.runtime.errors import DatasetError
from onspect.runtime.images.files import IMAGE_SUFFIXES

_STEMS = ("labels", "label", "annotations", "classes", "ground_truth")
_ENDINGS = (".csv", ".tsv", ".txt")
_OTHER_ENDINGS = frozenset({".json", ".xlsx", ".xls", ".ods", ".xml", ".yaml", ".yml", ".parquet", ".npy"})
_FILE_COLUMNS = (
    "file", "filename", "file_name", "file name", "image", "image_name", "img", "path", "name", "image_path",
    "filepath", "datei", "dateiname", "bild",
)  # fmt: skip
_LABEL_COLUMNS = (
    "label", "class", "kind", "verdict", "defect", "category", "anomaly", "is_defect", "target", "result", "status",
    "quality", "label_index", "klasse", "ergebnis", "bewertung", "fehler",
)  # fmt: skip
_GOOD_COLUMNS = ("good", "is_good", "ok", "is_ok", "passed")
_GOOD_VALUES = ("0", "false", "none", "no", "", "nein")
_BAD_VALUES = ("1", "true", "yes", "ja")


def find_label_file(folder: Path) -> Path | None:
    """Return the table of labels of a folder, None where it has none."""
    try:
        found = {path.name.casefold(): path for path in folder.iterdir() if path.suffix.casefold() in _ENDINGS}
    except OSError:
        return None
    return next((found[stem + ending] for ending in _ENDINGS for stem in _STEMS if stem + ending in found), None)


def find_other_labels(paths: Iterable[Path]) -> list[Path]:
    """Return files that may say which images are good and that are not read, such as labels.json."""
    return [path for path in paths if path.stem.casefold() in _STEMS and path.suffix.casefold() in _OTHER_ENDINGS]


def read_label_file(table: Path, images: Sequence[Path]) -> dict[Path, str]:
    """Return the kind of each image, ``good`` or a defect's name.

    Raises DatasetError where the table cannot be understood or does not name an image: an image that nobody called good
    must not be taken for good.
    """
    kinds = look_up_labels(table, images)
    missing = [path for path in images if path not in kinds]
    if missing:
        raise DatasetError(
            f"{str(table)!r} does not say what {len(missing)} of {len(images)} images are, such as "
            f"{missing[0].name!r}; {_cure(table)}"
        )
    return kinds


def look_up_labels(table: Path, images: Sequence[Path]) -> dict[Path, str]:
    """Return the kind of each image that a table names, with or without folders and endings.

    Raises DatasetError where the table cannot be read, has no columns of files and labels, or contradicts itself.
    """
    known: dict[str, list[tuple[PurePosixPath, str]]] = defaultdict(list)
    for name, kind in _read_rows(table):
        file = PurePosixPath(name.strip().replace("\\", "/"))
        known[file.name.casefold()].append((file, kind))
    kinds = {}
    for path in images:
        rows = known.get(path.name.casefold()) or known.get(path.stem.casefold()) or []
        nearest = max((_agree(path, file) for file, _ in rows), default=0)
        found = {kind for file, kind in rows if _agree(path, file) == nearest}
        if len(found) > 1:
            raise DatasetError(
                f"{str(table)!r} calls {path.name!r} {' and '.join(map(repr, sorted(found)))}; {_cure(table)}"
            )
        if found:
            kinds[path] = found.pop()
    return kinds


def _agree(path: Path, file: PurePosixPath) -> int:
    """Return how many of the last folders of two paths are equal."""
    count = 0
    for mine, other in zip(reversed(path.parts[:-1]), reversed(file.parts[:-1]), strict=False):
        if mine.casefold() != other.casefold():
            break
        count += 1
    return count


def _read_rows(table: Path) -> list[tuple[str, str]]:
    """Return the name of a file and its kind in each row; a first row that names an image is no header."""
    text = _read_text(table)
    first = text.partition("\n")[0]
    separator = max(",;\t|", key=first.count)
    if separator not in first:
        separator = " "
    rows = [row for row in csv.reader(text.splitlines(), delimiter=separator) if any(row)]
    header = [cell.strip().casefold() for cell in rows[0]] if rows else []
    if len(header) == 2 and PurePosixPath(header[0]).suffix in IMAGE_SUFFIXES:
        rows, header = [["file", "label"], *rows], ["file", "label"]
    columns = (*_LABEL_COLUMNS, *_GOOD_COLUMNS)
    file_column = next((header.index(name) for name in _FILE_COLUMNS if name in header), None)
    label_column = next((header.index(name) for name in columns if name in header), None)
    if file_column is None or label_column is None or file_column == label_column:
        raise DatasetError(
            f"{str(table)!r} seems to say which images are good, and its columns {header} are not understood: "
            f"name them 'file' and 'label'; {_cure(table)}"
        )
    last = max(file_column, label_column)
    pairs = [(row[file_column], row[label_column].strip()) for row in rows[1:] if len(row) > last]
    if any(label.startswith("-") for _, label in pairs):
        raise DatasetError(f"{str(table)!r} has labels below 0, of which it is not known which is good; {_cure(table)}")
    is_inverted = header[label_column] in _GOOD_COLUMNS
    return [(name, _read_kind(label, inverted=is_inverted)) for name, label in pairs]


def _read_text(table: Path) -> str:
    try:
        data = table.read_bytes()
        is_wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        return data.decode("utf-16" if is_wide else "utf-8-sig")
    except (OSError, UnicodeError) as error:
        reason = describe_os_error(error) if isinstance(error, OSError) else "it is not UTF-8"
        raise DatasetError(f"cannot read the labels in {str(table)!r}: {reason}; {_cure(table)}") from error


def _read_kind(label: str, *, inverted: bool) -> str:
    value = label.casefold()
    if inverted and value in (*_GOOD_VALUES, *_BAD_VALUES):
        return GOOD if value in _BAD_VALUES else "defective"
    if is_good(label) or value in _GOOD_VALUES:
        return GOOD
    return "defective" if is_bad(label) or value in _BAD_VALUES else label


def _cure(table: Path) -> str:
    return f"correct it, or move the images into folders {GOOD!r} and 'DEFECT' and {table.name!r} away"
