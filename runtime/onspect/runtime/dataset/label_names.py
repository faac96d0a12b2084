"""What folders and files call good and defective parts, masks and splits."""

from __future__ import annotations

import re
import unicodedata

GOOD = "good"
"""The name of the folder, and the kind, of defect-free images."""

GOOD_WORDS = frozenset(
    {"good", "ok", "normal", "pass", "passed", "io", "nominal", "defect free", "no defect", "not defective", "gut"}
)
BAD_WORDS = frozenset(
    {"bad", "ng", "nok", "ko", "defect", "defects", "defective", "anomaly", "anomalous", "anomalies", "abnormal"}
    | {"fail", "failed", "reject", "rejected", "rejects", "scrap", "nio", "faulty", "schlecht"}
)
SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "validation", "valid"),
    "test": ("test", "test_public", "testing"),
}
"""Names of the folders of each split, the usual one first."""

TRUTH_WORDS = frozenset({"ground truth", "groundtruth", "gt", "mask", "masks"})
_OTHER_SPLITS = frozenset({"test private", "test private mixed"})
_MASK_ENDING = re.compile(r"(?:[_ .-](?:mask|masks|gt|label|seg|annotation))$", re.IGNORECASE)
_WORD = re.compile(r"[^\W\d_]+")


def plain(name: str) -> str:
    """Return a name in small letters, composed Unicode, with spaces for ``_`` and ``-``."""
    return re.sub(r"[\s_-]+", " ", unicodedata.normalize("NFC", name).casefold()).strip()


def is_good(name: str) -> bool:
    """Tell whether a folder's name, or a label, means good."""
    return plain(name) in GOOD_WORDS


def is_bad(name: str) -> bool:
    """Tell whether a folder's name, or a label, means defective in general."""
    return plain(name) in BAD_WORDS


def seems_good(name: str) -> bool:
    """Tell whether a folder's name begins as one of good parts does, and is none that is known."""
    words = _WORD.findall(plain(name))
    return not is_good(name) and bool(words) and words[0] in {"good", "ok", "okay", "normal", "gut", "goods"}


def is_truth(name: str) -> bool:
    """Tell whether a folder's name is one of masks."""
    return plain(name) in TRUTH_WORDS


def is_split(name: str) -> bool:
    """Tell whether a folder's name is one of a split of the data."""
    return any(plain(name) == plain(known) for names in SPLITS.values() for known in names) or (
        plain(name) in _OTHER_SPLITS
    )


def read_label(stem: str) -> bool | None:
    """Return whether a file's name, without its ending, begins with a word for good (True) or defective (False).

    >>> read_label("good_001"), read_label("NG-17"), read_label("part_003")
    (True, False, None)
    """
    words = _WORD.findall(plain(stem))
    if not words:
        return None
    return True if words[0] in GOOD_WORDS else False if words[0] in BAD_WORDS else None


def strip_mask_ending(stem: str) -> str | None:
    """Return the name of the image that a mask's name is made of, None where the name is none of a mask."""
    found = _MASK_ENDING.search(stem)
    return stem[: found.start()] if found and found.start() else None
