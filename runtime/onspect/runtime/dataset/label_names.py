"""Names of folders and files for good and defective parts, masks and splits."""

from __future__ import annotations

import re
import unicodedata

GOOD = "good"
"""The name of the folder, and the kind, of defect-free images."""

GOOD_WORDS = frozenset(
    {"good", "ok", "okay", "normal", "pass", "passed", "io", "nominal", "accept", "accepted", "intact", "flawless"}
    | {"defect free", "no defect", "no defects", "not defective", "non defective", "without defect", "undamaged"}
    | {"gut", "in ordnung", "fehlerfrei", "bon", "bons", "buono", "buoni", "bueno", "buenos", "correcto", "conforme"}
    | {"apto", "bom", "aprovado", "goed", "goedgekeurd", "godkänd", "dobry", "dobre", "dobrý", "хорошо", "годен"}
    | {"良品", "良", "良好", "合格", "合格品", "正常", "无缺陷", "無缺陷", "欠陥なし", "양품", "정상", "합격"}
)
BAD_WORDS = frozenset(
    {"bad", "ng", "nok", "ko", "defect", "defects", "defective", "anomaly", "anomalous", "anomalies", "abnormal"}
    | {"fail", "failed", "reject", "rejected", "rejects", "scrap", "nio", "faulty", "not good", "no good", "not ok"}
    | {"damaged", "schlecht", "ausschuss", "fehlerhaft", "nicht in ordnung", "mauvais", "malo", "malos", "scarto"}
    | {"scarti", "difettoso", "defectuoso", "no conforme", "non conforme", "não conforme", "no apto", "rebut", "defaut"}
    | {"défaut", "défectueux", "ruim", "reprovado", "slecht", "afgekeurd", "underkänd", "zły", "zle", "vadný", "брак"}
    | {"不良品", "不良", "不合格", "不合格品", "异常", "異常", "缺陷", "欠陥", "欠陥品", "불량", "불합격", "비정상"}
)
_DEFECT_WORDS = frozenset(
    {"scratch", "scratched", "scratches", "crack", "cracked", "cracks", "dent", "dents", "broken"}
)
_NO_KINDS = frozenset(
    {"image", "images", "img", "imgs", "jpegimages", "picture", "pictures", "photo", "photos", "bilder", "rgb"}
    | {"unlabeled", "unlabelled", "unknown", "unsorted", "review", "todo", "reference", "references", "template"}
    | {"overlay", "overlays", "heatmap", "heatmaps", "result", "results", "output", "outputs", "predictions"}
    | {"preview", "previews", "cache", "tmp", "temp", "backup", "backups", "archive", "old"}
)
_LONG = 5  # letters of a word that counts anywhere in a name
SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "validation", "valid"),
    "test": ("test", "test_public", "testing"),
}
"""Names of the folders of each split, the usual one first."""

TRUTH_WORDS = frozenset({"ground truth", "groundtruth", "gt", "mask", "masks"})
_LABEL_FOLDERS = frozenset({"label", "labels", "annotation", "annotations", "seg", "segmentation", "segmentations"})
_OTHER_SPLITS = frozenset({"test private", "test private mixed"})
_MASK_WORD = "(?:mask|masks|gt|label|seg|annotation)"
_MASK_ENDING = re.compile(rf"[_ .-]{_MASK_WORD}$", re.IGNORECASE)
_MASK_ADDITION = re.compile(rf"^{_MASK_WORD}[_ .-]+|[_ .-]?{_MASK_WORD}$", re.IGNORECASE)
_WORD = re.compile(r"[^\W\d_]+")


def plain(name: str) -> str:
    """Return a name in a form for comparison.

    Parameters
    ----------
    name
        Name of a folder, or a label.

    Returns
    -------
    str
        The name in small letters and composed Unicode, with spaces for ``_`` and ``-``, without dots.
    """
    return re.sub(r"[\s_-]+", " ", unicodedata.normalize("NFC", name).casefold().replace(".", "")).strip()


def is_good(name: str) -> bool:
    """Return whether a folder's name, or a label, means good.

    Parameters
    ----------
    name
        Name of a folder, or a label.

    Returns
    -------
    bool
        True for the words in `GOOD_WORDS`.
    """
    return plain(name) in GOOD_WORDS


def is_bad(name: str) -> bool:
    """Return whether a folder's name, or a label, means defective in general.

    Parameters
    ----------
    name
        Name of a folder, or a label.

    Returns
    -------
    bool
        True for the words in `BAD_WORDS`.
    """
    return plain(name) in BAD_WORDS


def seems_good(name: str) -> bool:
    """Return whether a folder's name resembles a name for good parts without being one.

    Parameters
    ----------
    name
        Name of a folder.

    Returns
    -------
    bool
        True for names such as ``good_parts`` and ``good.old``.
    """
    words = _WORD.findall(plain(name.replace(".", " ") if is_good(name.partition(".")[0]) else name))
    return not is_good(name) and bool(words) and words[0] in {"good", "ok", "okay", "normal", "gut", "goods"}


def is_no_kind(name: str) -> bool:
    """Return whether a folder's name is one for unlabelled images or for the output of a program.

    Parameters
    ----------
    name
        Name of a folder.

    Returns
    -------
    bool
        True for names such as ``images`` and ``results``.
    """
    return plain(name) in _NO_KINDS


def is_truth(name: str) -> bool:
    """Return whether a folder's name is one for masks.

    Parameters
    ----------
    name
        Name of a folder.

    Returns
    -------
    bool
        True for the words in `TRUTH_WORDS`.
    """
    return plain(name) in TRUTH_WORDS


def may_be_truth(name: str) -> bool:
    """Return whether a folder beside images may have masks. Elsewhere such a name may be a kind of defect.

    Parameters
    ----------
    name
        Name of a folder.

    Returns
    -------
    bool
        True for names such as ``masks``, ``labels`` and ``annotations``.
    """
    return is_truth(name) or plain(name) in _LABEL_FOLDERS


def is_split(name: str) -> bool:
    """Return whether a folder's name is one for a split of the data.

    Parameters
    ----------
    name
        Name of a folder.

    Returns
    -------
    bool
        True for the names in `SPLITS` and for the private test splits of MVTec AD 2.
    """
    return any(plain(name) == plain(known) for names in SPLITS.values() for known in names) or (
        plain(name) in _OTHER_SPLITS
    )


def read_label(stem: str) -> bool | None:
    """Return whether a file name says that the part is good or defective.

    Short words count only as the first or the last word of the name. A name with words of both has no label.

    Parameters
    ----------
    stem
        File name without its ending.

    Returns
    -------
    bool or None
        True for good, False for defective, None if the name has no label.

    Examples
    --------
    >>> read_label("good_001"), read_label("img17_NG"), read_label("part_003")
    (True, False, None)
    """
    words = _WORD.findall(plain(stem))
    text = " ".join(words)
    if not words or text in GOOD_WORDS:
        return True if words else None
    if words[0] in {"no", "not", "nicht"} and len(words) > 1 and words[1] in GOOD_WORDS:
        return False
    told = [word for place, word in enumerate(words) if place in (0, len(words) - 1) or len(word) >= _LONG]
    good = any(word in GOOD_WORDS for word in told)
    bad = any(word in BAD_WORDS or word in _DEFECT_WORDS for word in told)
    return None if good == bad else good


def strip_mask_ending(stem: str) -> str | None:
    """Return the name of the image that a mask belongs to.

    Parameters
    ----------
    stem
        File name without its ending.

    Returns
    -------
    str or None
        The name without ``_mask`` or a similar ending; None if the name has no such ending.
    """
    found = _MASK_ENDING.search(stem)
    return stem[: found.start()] if found and found.start() else None


def strip_mask_addition(stem: str) -> str | None:
    """Return a name without the word for a mask before or behind it.

    Parameters
    ----------
    stem
        File name without its ending, such as ``mask_7`` or ``7Mask``.

    Returns
    -------
    str or None
        The rest of the name; None if the name has no such word.
    """
    base = _MASK_ADDITION.sub("", stem, count=1)
    return base if base and base != stem else None


def is_named_as_mask(stem: str) -> bool:
    """Return whether a file name ends with ``_mask`` or ``_gt``, a name that images of parts hardly have.

    Parameters
    ----------
    stem
        File name without its ending.

    Returns
    -------
    bool
        True if it has such an ending.
    """
    return bool(re.search(r"[_ .-](?:masks?|gt)$", stem, re.IGNORECASE))
