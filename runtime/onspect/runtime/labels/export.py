"""Labelled pictures as a dataset folder in the layout of MVTec AD."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from onspect.runtime.atomic import make_folder, new_folder, write_atomically
from onspect.runtime.errors import OutputError
from onspect.runtime.labels.store import LabelStore, StoredPicture

TEST_EVERY = 5
"""Every fifth good picture goes to ``test/good``, so that an evaluation has good parts that were not taught."""


@dataclass(frozen=True)
class Exported:
    """Counts of the pictures of an export."""

    train: int
    """Number of good pictures in ``train/good``."""

    test_good: int
    """Number of good pictures in ``test/good``."""

    test_bad: int
    """Number of bad pictures in ``test/bad``."""


def export_labels(store: LabelStore, folder: Path | str) -> Exported:
    """Write each labelled picture as PNG, by its newest label, and pictures.jsonl with name and time of each label.

    Parameters
    ----------
    store
        The labels.
    folder
        The dataset folder; it must be empty or missing. A failure leaves it unchanged.

    Returns
    -------
    Exported
        The counts of the pictures.

    Raises
    ------
    OutputError
        If nothing is labelled, the folder is not empty, or it cannot be written.
    """
    pictures = store.list_pictures(labelled=True)
    if not pictures:
        raise OutputError(f"no picture in {str(store.path)!r} has a label; label parts on the dashboard first")
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(f"{str(folder)!r} is not an empty folder; give a new one")
    counts = {"train/good": 0, "test/good": 0, "test/bad": 0}
    lines = []
    with new_folder(folder):
        for picture in reversed(pictures):
            good = counts["train/good"] + counts["test/good"]
            place = "train/good" if picture.label == "good" and (good + 1) % TEST_EVERY else f"test/{picture.label}"
            path = Path(place, f"{picture.id:06}.png")
            make_folder((folder / path).parent)
            write_atomically(folder / path, store.read(picture.id), sync=False)
            counts[place] += 1
            lines.append(_describe(picture, path))
        write_atomically(folder / "pictures.jsonl", "".join(f"{line}\n" for line in lines).encode())
    return Exported(*counts.values())


def _describe(picture: StoredPicture, path: Path) -> str:
    facts = {
        "picture": path.as_posix(),
        "label": picture.label,
        "who": picture.who,
        **asdict(picture.key),
        "part": picture.part,
        "verdict": picture.verdict,
        "score": picture.score,
        "model": picture.model,
    }
    return json.dumps(facts, ensure_ascii=False)
