"""Teach more good pictures to a model file, and undo the last addition."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onspect.runtime.atomic import sweep_abandoned, write_atomically
from onspect.runtime.conformal import CROSS_CONFORMAL, conformal
from onspect.runtime.dataset.good_images import GoodImages
from onspect.runtime.dataset.groups import group_names, worst_of_groups
from onspect.runtime.dataset.near_duplicates import extend_near_duplicates
from onspect.runtime.errors import DatasetError, ModelFileError
from onspect.runtime.fingerprints import fingerprint_set, unpack_fingerprints
from onspect.runtime.model.file import ModelFile, read_model_file, stamp
from onspect.runtime.model.schema import Looks, Memory, ModelInfo, Stamp
from onspect.runtime.progress import Progress
from onspect.runtime.teaching.base_file import edit_graph, split_metadata
from onspect.runtime.teaching.extract import Extractor
from onspect.runtime.teaching.graph_values import Stored, describe_lesson
from onspect.runtime.teaching.pictures import load_like, name_folder, take
from onspect.runtime.teaching.taught import Lone, Taught, find_lone_additions, leave_out, note_trimmed, refuse_lone
from onspect.runtime.teaching.threshold import choose_rate, counts_parts, make_calibration

_LOG = logging.getLogger("onspect")


def add(
    model: Path | str,
    pictures: Path | str | Sequence[Path | str],
    *,
    group: str | None = None,
    rate: float | None = None,
    strict: bool = False,
    trim: bool = False,
    keep_threshold: bool = False,
    progress: Progress | None = None,
) -> Taught:
    """Teach more good pictures to a model file. The file is replaced completely or not at all.

    Vectors are added to the memory and none is removed, so no score rises. Pictures that were taught before are
    left out. If `teach` chose the threshold, it is chosen again, but without `rate` it is never raised. A rejected
    part has a high score, and a threshold above it would let defects pass. A threshold from ``onspect calibrate``
    is kept.

    Parameters
    ----------
    model
        The model file.
    pictures
        A folder of good pictures, or image files.
    group
        A regular expression for file names, as in `teach`. The pictures count as pictures of new parts. If a
        part was taught before, give all its pictures at once.
    rate
        Share of new good parts that may be rejected, between 0 and 1. None as in `teach`.
    strict
        Refuse pictures whose score is an outlier.
    trim
        Leave out pictures whose score is an outlier, once.
    keep_threshold
        Keep the threshold in any case. Then no part is rejected that passed before.
    progress
        Wraps long work, for a progress bar.

    Returns
    -------
    Taught
        The file, its metadata, the promised rate and outliers.

    Raises
    ------
    ModelFileError
        If the file has no memory, or its memory is full.
    DatasetError
        If pictures cannot be used, or all were taught before, or (with `strict`) one is an outlier.
    ChoiceError
        If the group is not a regular expression.
    OutputError
        If the file cannot be written.
    """
    file = read_model_file(model)
    memory = _require_memory(file)
    found = load_like(pictures, file.info.preprocess, progress)
    known = {name for lesson in memory.lessons for name in unpack_fingerprints(lesson.fingerprints)}
    fresh = [place for place, name in enumerate(found.fingerprints) if name not in known]
    if not fresh:
        raise DatasetError(
            f"all {len(found.images)} pictures of {name_folder(pictures)!r} were taught already; nothing was changed"
        )
    found = take(found, fresh)
    if group is None and counts_parts(file.info):
        _LOG.warning(
            "the file was taught with --group; without it each of the %d new pictures counts as a part", len(fresh)
        )
    graph, _ = split_metadata(file.path, file.data)
    extractor = Extractor.open(graph)
    trimmed: tuple[Lone, ...] = ()
    while True:
        groups = group_names(found.paths, group)
        taught = extractor.extract(found.images, progress=progress)
        taught, owners = extractor.add_copies(taught, found.images, memory.copies, progress)
        grown, scores = Stored.read(graph).grow(graph, taught, owners, groups, by_whole=memory.by_whole, path=file.path)
        lone = find_lone_additions(file, found, scores, groups, rate)
        if not trim or trimmed or not lone:
            break
        trimmed, found = lone, leave_out(found, lone)
        if not len(found.images):
            raise DatasetError(
                f"the scores of all {len(lone)} new pictures are outliers; check them, or teach without --trim"
            )
    refuse_lone(lone, strict=strict)
    content = edit_graph(graph, grown.arrays())
    data = name_folder(pictures)
    of_parts = None if keep_threshold else worst_of_groups(scores, groups)
    info = _lengthen(file, memory, found, grown, of_parts, rate, data)
    refused = None
    if rate is None and _score_of(info) > _score_of(file.info):
        refused = _score_of(info)
        info = _lengthen(file, memory, found, grown, None, rate, data)
    info = note_trimmed(info, trimmed)
    training = {*file.training_images, *found.fingerprints}
    looks = extend_near_duplicates(file.looks, found.images, found.fingerprints)
    written, total = _write(file.path, stamp(content, info, training, looks))
    return Taught(file.path, written, len(found.images), choose_rate(rate, total), lone, trimmed, refused)


def take_back(model: Path | str) -> Taught:
    """Undo the last addition to a model file. The file is replaced completely or not at all.

    Parameters
    ----------
    model
        The model file.

    Returns
    -------
    Taught
        The file, its metadata, and the number of pictures that were removed.

    Raises
    ------
    ModelFileError
        If there is no addition.
    OutputError
        If the file cannot be written.
    """
    file = read_model_file(model)
    memory = _require_memory(file)
    if len(memory.lessons) < 2:
        raise ModelFileError(f"{str(file.path)!r} was taught only once; there is no addition to undo")
    last, before = memory.lessons[-1], memory.lessons[-2]
    graph, _ = split_metadata(file.path, file.data)
    stored = Stored.read(graph)
    shorter = Stored(
        stored.vectors[: before.vectors], stored.map_vectors[: before.map_vectors], stored.whole[: before.whole_vectors]
    )
    info = dataclasses.replace(file.info, memory=dataclasses.replace(memory, lessons=memory.lessons[:-1]))
    if len(info.history) > last.stamps:
        info = dataclasses.replace(info, **vars(info.history[last.stamps]), history=info.history[: last.stamps])
    taken = set(unpack_fingerprints(last.fingerprints))
    info = _recount(info, file.training_images - taken)
    looks = None
    if file.looks is not None and last.looks:
        looks = Looks(file.looks.medians, file.looks.hashes[: last.looks])
    content = edit_graph(graph, shorter.arrays())
    written, total = _write(file.path, stamp(content, info, file.training_images - taken, looks))
    return Taught(file.path, written, last.pictures, choose_rate(None, total))


def _write(path: Path, content: bytes) -> tuple[ModelInfo, int]:
    """Replace a model file; return its metadata, and the number of good scores that its threshold is from."""
    write_atomically(path, content)
    sweep_abandoned(path)
    written = read_model_file(path).info
    return written, 1 if written.calibration is None else len(written.calibration.good_scores)


def _require_memory(file: ModelFile) -> Memory:
    if file.info.memory is None:
        raise ModelFileError(
            f"{str(file.path)!r} has no memory of good parts; make a file with 'onspect teach GOOD --base base.onnx'"
        )
    return file.info.memory


def _lengthen(
    file: ModelFile,
    memory: Memory,
    found: GoodImages,
    grown: Stored,
    scores: NDArray[np.float64] | None,
    rate: float | None,
    data: str,
) -> ModelInfo:
    """Return the metadata of a file after an addition. Without the scores of the new parts the threshold is kept."""
    info = file.info
    looks = 0 if file.looks is None else len(file.looks.hashes)
    lesson = describe_lesson(grown, found.fingerprints, data, stamps=len(info.history), looks=looks)
    info = dataclasses.replace(info, memory=dataclasses.replace(memory, lessons=(*memory.lessons, lesson)))
    info = _recount(info, file.training_images | set(found.fingerprints))
    old, threshold = info.calibration, info.threshold
    if scores is None or threshold is None or old is None or CROSS_CONFORMAL not in old.policy:
        return info
    every = np.concatenate([np.array(old.good_scores), scores])
    promised = choose_rate(rate, len(every))
    fingerprints = [*unpack_fingerprints(old.fingerprints), *found.fingerprints]
    moved = dataclasses.replace(threshold, score=conformal(every, promised))
    calibration = make_calibration(every, moved, promised, fingerprints, old.data)
    history = (*info.history, Stamp(threshold, old))
    return dataclasses.replace(info, threshold=moved, calibration=calibration, history=history)


def _score_of(info: ModelInfo) -> float:
    return 0.0 if info.threshold is None else info.threshold.score


def _recount(info: ModelInfo, fingerprints: frozenset[str] | set[str]) -> ModelInfo:
    """Return the metadata with the new number of pictures and their fingerprint."""
    assert info.memory is not None
    source = dataclasses.replace(
        info.provenance,
        training_images=info.memory.pictures,
        training_fingerprint=fingerprint_set(fingerprints),
    )
    return dataclasses.replace(info, provenance=source)
