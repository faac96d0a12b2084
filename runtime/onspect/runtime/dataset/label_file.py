"""A table of labels, such as labels.csv, that says which images of a folder are good."""

from __future__ import annotations

import codecs
import csv
import itertools
import unicodedata
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
    "filepath", "datei", "dateiname", "bild", "archivo", "fichier", "arquivo", "ファイル", "ファイル名",
    "文件", "文件名", "파일",
)  # fmt: skip
_LABEL_COLUMNS = (
    "label", "class", "kind", "verdict", "defect", "category", "anomaly", "is_defect", "target", "result", "status",
    "quality", "label_index", "klasse", "ergebnis", "bewertung", "fehler", "etiqueta", "resultado", "estado",
    "etat", "état", "esito", "判定", "ラベル", "标签", "標籤", "结果", "판정", "라벨",
)  # fmt: skip
_GOOD_COLUMNS = ("good", "is_good", "ok", "is_ok", "passed")
_DEFECT_COLUMNS = ("defect", "anomaly", "is_defect", "fehler")
"""Columns of labels in which an empty cell means "no defect"."""

_GOOD_VALUES = ("0", "0.0", "false", "none", "no", "", "nein")
_BAD_VALUES = ("1", "1.0", "true", "yes", "ja", "x")
_NO_LABELS = ("?", "unknown", "nan", "n/a", "na", "null", "unlabeled", "unlabelled", "todo", "review", "unbekannt")


def find_label_file(folder: Path) -> Path | None:
    """Find the table of labels of a folder.

    Parameters
    ----------
    folder
        The folder.

    Returns
    -------
    Path or None
        The table, None if the folder has none.
    """
    try:
        found = {path.name.casefold(): path for path in folder.iterdir() if path.suffix.casefold() in _ENDINGS}
    except OSError:
        return None
    return next((found[stem + ending] for ending in _ENDINGS for stem in _STEMS if stem + ending in found), None)


def find_other_labels(paths: Iterable[Path]) -> list[Path]:
    """Find files that may say which images are good and that are not read, such as labels.json.

    Parameters
    ----------
    paths
        The files of a folder.

    Returns
    -------
    list[Path]
        The files with such names.
    """
    return [path for path in paths if path.stem.casefold() in _STEMS and path.suffix.casefold() in _OTHER_ENDINGS]


def read_label_file(table: Path, images: Sequence[Path]) -> dict[Path, str]:
    """Read the kind of each image. Every image must have a label, so that no unlabelled image counts as good.

    Parameters
    ----------
    table
        The table.
    images
        The images.

    Returns
    -------
    dict[Path, str]
        ``good`` or the name of the defect, for each image.

    Raises
    ------
    DatasetError
        If the table is not understood or does not name an image.
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
    """Read the kind of each image that a table names, with or without folders and endings.

    Parameters
    ----------
    table
        The table.
    images
        The images.

    Returns
    -------
    dict[Path, str]
        ``good`` or the name of the defect, for each image in the table.

    Raises
    ------
    DatasetError
        If the table cannot be read, has no columns of files and labels, or contradicts itself.
    """
    known: dict[str, list[tuple[PurePosixPath, str]]] = defaultdict(list)
    for name, kind in _read_rows(table):
        file = PurePosixPath(name.strip().replace("\\", "/"))
        known[_key(file.name)].append((file, kind))
    kinds = {}
    for path in images:
        rows = known.get(_key(path.name)) or known.get(_key(path.stem)) or []
        nearest = max((_agree(path, file) for file, _ in rows), default=0)
        found = {kind for file, kind in rows if _agree(path, file) == nearest}
        if len(found) > 1:
            raise DatasetError(
                f"{str(table)!r} calls {path.name!r} {' and '.join(map(repr, sorted(found)))}; {_cure(table)}"
            )
        if found:
            kinds[path] = found.pop()
    return kinds


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _agree(path: Path, file: PurePosixPath) -> int:
    """Return how many of the last folders of two paths are equal."""
    folders = zip(reversed(path.parts[:-1]), reversed(file.parts[:-1]), strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: _key(pair[0]) == _key(pair[1]), folders))


def _read_rows(table: Path) -> list[tuple[str, str]]:
    """Return file name and kind of each row that has a label. A first row that names an image is not a header."""
    rows = _split_rows(table)
    header = [cell.strip().casefold() for cell in rows[0]] if rows else []
    if len(header) == 2 and PurePosixPath(header[0]).suffix in IMAGE_SUFFIXES:
        rows, header = [["file", "label"], *rows], ["file", "label"]
    columns = (*_LABEL_COLUMNS, *_GOOD_COLUMNS)
    file_column = next((header.index(name) for name in _FILE_COLUMNS if name in header), None)
    label_column = next((header.index(name) for name in columns if name in header), None)
    if file_column is None or label_column is None or file_column == label_column:
        raise DatasetError(
            f"{str(table)!r} seems to say which images are good, but its columns {header} are not understood: "
            f"name them 'file' and 'label'; {_cure(table)}"
        )
    last, column = max(file_column, label_column), header[label_column]
    pairs = [(row[file_column], row[label_column].strip()) for row in rows[1:] if len(row) > last]
    if any(label.startswith("-") and label != "-" for _, label in pairs):
        raise DatasetError(f"{str(table)!r} has labels below 0, and it is unknown which label is good; {_cure(table)}")
    kinds = [(name, label, _read_kind(table, label, column)) for name, label in pairs]
    found = {kind for _, _, kind in kinds}
    others = sorted({label for _, label, kind in kinds if kind == label})
    if others and GOOD not in found:
        raise DatasetError(
            f"{str(table)!r} calls no image good, and it is unknown which of its labels means good "
            f"({', '.join(map(repr, others[:4]))}); {_cure(table)}"
        )
    return [(name, kind) for name, _, kind in kinds if kind is not None]


def _split_rows(table: Path) -> list[list[str]]:
    """Return the cells of a table, without empty rows, comments in front and a line for spreadsheets (``sep=;``)."""
    lines = _read_text(table).splitlines()
    while lines and (not lines[0].strip() or lines[0].startswith(("#", "sep="))):
        del lines[0]
    first = lines[0] if lines else ""
    separator = max(",;\t|", key=first.count)
    try:
        rows = list(csv.reader(lines, delimiter=separator if separator in first else " "))
    except csv.Error as error:
        raise DatasetError(f"cannot read the labels in {str(table)!r}: {error}; {_cure(table)}") from error
    return [row for row in rows if any(row)]


def _read_text(table: Path) -> str:
    try:
        data = table.read_bytes()
        is_wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = data.decode("utf-16" if is_wide else "utf-8-sig")
    except (OSError, UnicodeError) as error:
        reason = describe_os_error(error) if isinstance(error, OSError) else "it is not UTF-8"
        raise DatasetError(f"cannot read the labels in {str(table)!r}: {reason}; {_cure(table)}") from error
    if "\0" in text:
        raise DatasetError(f"cannot read the labels in {str(table)!r}: it is not UTF-8; {_cure(table)}")
    return text


def _read_kind(table: Path, label: str, column: str) -> str | None:
    """Return the kind that a label names: ``good``, ``defective`` or the label itself; None if it names no kind."""
    value = label.casefold()
    if column in _GOOD_COLUMNS and value in (*_GOOD_VALUES, *_BAD_VALUES):
        return GOOD if value in _BAD_VALUES else "defective"
    if value in _NO_LABELS or (not value and column not in _DEFECT_COLUMNS):
        return None
    if is_good(label) or value in _GOOD_VALUES:
        return GOOD
    if is_bad(label) or value in _BAD_VALUES:
        return "defective"
    if column in _GOOD_COLUMNS:
        raise DatasetError(f"{str(table)!r} has {label!r} in the column {column!r}; write 1 or 0; {_cure(table)}")
    return label


def _cure(table: Path) -> str:
    return f"correct it, or move the images into folders {GOOD!r} and 'DEFECT' and {table.name!r} away"
