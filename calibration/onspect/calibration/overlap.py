"""Images that are, or look almost like, those that the model was trained on or its threshold chosen on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from onspect.calibration.scores import ScoredImage
from onspect.runtime.looks import find_twins, hash_look
from onspect.runtime.model_file import ModelFile, unpack_fingerprints

_NAMED = 3


@dataclass(frozen=True)
class Overlap:
    """What a set of images shares with others, and what only looks almost like one of those; paths, in order.

    twins is None where there is nothing to compare with: an older release, or too few training images.
    """

    same: tuple[Path, ...]
    twins: tuple[Path, ...] | None


def compare_with_training(results: Sequence[ScoredImage], model: ModelFile) -> Overlap:
    """Return what images share with those that the model was trained on."""
    known = None if model.looks is None else model.looks.hashes
    return _compare(results, model, model.training_images, known)


def compare_with_calibration(results: Sequence[ScoredImage], model: ModelFile) -> Overlap:
    """Return what images share with those that the file's threshold was chosen on."""
    calibration = model.info.calibration
    if calibration is None:
        return Overlap((), None)
    known = unpack_fingerprints(calibration.looks) if calibration.looks else None
    return _compare(results, model, frozenset(unpack_fingerprints(calibration.fingerprints)), known)


def _compare(
    results: Sequence[ScoredImage], model: ModelFile, fingerprints: frozenset[str], hashes: Sequence[str] | None
) -> Overlap:
    same = [result.fingerprint in fingerprints for result in results]
    paths = [result.image.path for result in results]
    shared = tuple(path for path, is_same in zip(paths, same, strict=True) if is_same)
    if hashes is None or model.looks is None:
        return Overlap(shared, None)
    alike = find_twins([hash_look(result.look, model.looks) for result in results], hashes)
    twins = zip(paths, same, alike, strict=True)
    return Overlap(shared, tuple(path for path, is_same, is_alike in twins if is_alike and not is_same))


def describe_twins(twins: Sequence[Path] | None, total: int, whose: str, effect: str) -> list[str]:
    """Return a sentence about images that look almost like others, none where there are none."""
    if not twins:
        return []
    names = ", ".join(repr(path.name) for path in twins[:_NAMED])
    return [f"{len(twins)} of {total} images look almost like {whose}, such as {names}: {effect}"]
