"""Teaching: a finished model file from good pictures, with numpy, OpenCV and onnxruntime."""

from __future__ import annotations

import importlib.metadata
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onspect.runtime.atomic import sweep_abandoned, write_together
from onspect.runtime.dataset.good_images import GoodImages
from onspect.runtime.dataset.groups import group_names
from onspect.runtime.dataset.near_duplicates import count_twins, learn_near_duplicates
from onspect.runtime.errors import ChoiceError, DatasetError
from onspect.runtime.fingerprints import fingerprint_set
from onspect.runtime.images.quality import span
from onspect.runtime.images.region import RegionFile
from onspect.runtime.images.roi_mask import read_inspected
from onspect.runtime.inspection.verdict import now
from onspect.runtime.model.file import check_name, read_model_file, stamp
from onspect.runtime.model.schema import Looks, ModelInfo, Provenance, Score
from onspect.runtime.progress import Progress
from onspect.runtime.teaching.base_file import BaseFile, read_base_file
from onspect.runtime.teaching.extract import COPIES
from onspect.runtime.teaching.fill import fill_graph
from onspect.runtime.teaching.pictures import FEWEST, check_pictures, load, name_folder, show_objects
from onspect.runtime.teaching.taught import Lone, Taught, find_lone, leave_out, note_trimmed, refuse_lone
from onspect.runtime.teaching.threshold import choose_rate, fit_threshold

_LOG = logging.getLogger("onspect")

_MOST_TWINS = 0.2
"""Share of near duplicates among the pictures above which a warning suggests ``--group``."""


def teach(
    pictures: Path | str | Sequence[Path | str],
    output: Path | str,
    *,
    base: Path | str | BaseFile,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    white_level: int = 65535,
    any_size: bool = False,
    mask: Path | str | None = None,
    region: RegionFile | None = None,
    by_whole: bool | None = None,
    copies: str = "auto",
    group: str | None = None,
    rate: float | None = None,
    strict: bool = False,
    trim: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> Taught:
    """Make a finished model file from good pictures: features, memory and threshold.

    Parameters
    ----------
    pictures
        A folder of good pictures, or image files.
    output
        The model file, ending in ``.onnx``. It is written completely or not at all.
    base
        The base file that ``onspect backbone`` made.
    size
        Width and height to work at, in pixels, multiples of 32. None: the pictures' shape within `BUDGET` pixels.
    channels, white_level, any_size
        As in `load_good_images`.
    mask
        A black-and-white picture; black places are ignored (`read_mask`).
    region
        Region that frames are cropped to, with the alignment that finds the part (`parse_region`); None for whole
        frames.
    by_whole
        Judge whole images instead of their places. None: if pictures have a side below 64 pixels.
    copies
        Changed copies of the pictures to teach as well: ``none``, ``flips``, ``turns``, or ``auto``, which tests on the
        pictures whether parts are rotated.
    group
        A regular expression for file names. Pictures with the same match, or the same captured groups, show one part.
        They count once, and are left out together when each is judged by the others. None: each shows its own part.
    rate
        Share of new good parts that may be rejected, between 0 and 1. None: 1%, or the smallest share that the number
        of pictures supports if that is larger.
    strict
        Refuse pictures whose score is an outlier.
    trim
        Leave out pictures whose score is an outlier, once; with `strict`, refuse the remaining outliers.
    seed
        Seed of all random numbers; the same seed gives the same file.
    progress
        Wraps long work, for a progress bar.

    Returns
    -------
    Taught
        The file, its metadata, the promised rate and outliers.

    Raises
    ------
    DatasetError
        If there are too few pictures, all are alike, some cannot be read, or (with `strict`) one is an outlier.
    ChoiceError
        If an option is not valid, or mask or region cannot be used.
    ModelFileError
        If the base file cannot be used.
    OutputError
        If the file cannot be written.
    """
    output = Path(output)
    _check_options(output, copies, rate, size)
    base = base if isinstance(base, BaseFile) else read_base_file(base)
    painted = mask if mask is not None or region is None else region.mask
    one_size = painted is not None or bool(by_whole)
    found = load(pictures, size, channels, white_level, any_size, region, progress, one_size=one_size)
    check_pictures(found)
    whole = show_objects(found) if by_whole is None else by_whole
    inspected = read_inspected(None if painted is None else Path(painted), found.preprocess)
    trimmed: tuple[Lone, ...] = ()
    while True:
        groups = _find_groups(found, group)
        promised = choose_rate(rate, int(groups.max()) + 1)
        filled = fill_graph(
            base.graph,
            found.images,
            keep_aspect=found.preprocess.keep_aspect,
            mask=inspected,
            by_whole=whole,
            copies=copies,
            groups=groups,
            seed=seed,
            progress=progress,
        )
        lone = find_lone(found, filled.fitted, promised, groups)
        if not trim or trimmed or not lone:
            break
        trimmed, found = lone, leave_out(found, lone)
        check_pictures(found)
    refuse_lone(lone, strict=strict)
    data = name_folder(pictures)
    threshold, calibration = fit_threshold(filled.fitted, promised, found.fingerprints, data, groups)
    info = ModelInfo(
        name=output.stem,
        preprocess=found.preprocess,
        network=None,
        score=Score("memory", 0.0, inspected=1.0 if inspected is None else float(inspected.mean())),
        provenance=_describe_origin(found, data, seed),
        threshold=threshold,
        calibration=calibration,
        appearance=span(found.images),
        memory=filled.describe(base.info, found.fingerprints, data),
    )
    info = note_trimmed(info, trimmed)
    looks = learn_near_duplicates(found.images, list(found.fingerprints))
    if group is None and looks is not None:
        _warn_of_twins(looks)
    write_together({output: stamp(filled.graph, info, found.fingerprints, looks)})
    sweep_abandoned(output)
    return Taught(output, read_model_file(output).info, len(found.images), promised, lone, trimmed)


def _find_groups(found: GoodImages, group: str | None) -> NDArray[np.intp]:
    """Return the number of the part that each picture shows; raises DatasetError for fewer than two parts."""
    groups = group_names(found.paths, group)
    if groups.max() + 1 < FEWEST:
        raise DatasetError(f"all {len(groups)} pictures show one part by {group!r}; give pictures of 2 or more parts")
    return groups


def _warn_of_twins(looks: Looks) -> None:
    """Warn if many pictures look almost like another one, so that several may show one part."""
    count = count_twins(looks.hashes)
    if count > _MOST_TWINS * len(looks.hashes):
        _LOG.warning(
            "%d of %d pictures look almost like another one. If several pictures show one part, give --group; without "
            "it the threshold rejects more good parts than it promises",
            count,
            len(looks.hashes),
        )


def _check_options(output: Path, copies: str, rate: float | None, size: tuple[int, int] | None) -> None:
    check_name(output)
    if copies not in ("auto", *COPIES):
        raise ChoiceError(f"copies is {copies!r}; choose auto, {', '.join(COPIES)}")
    if rate is not None and not 0.0 < rate < 1.0:
        raise ChoiceError(f"rate is {rate}; give a share between 0 and 1, such as 0.01")
    if size is not None and (min(size) < 32 or size[0] % 32 or size[1] % 32):
        raise ChoiceError(f"size is {size[0]}x{size[1]}; give multiples of 32 pixels, such as 256x256")


def _describe_origin(found: GoodImages, data: str, seed: int) -> Provenance:
    time = now()
    return Provenance(
        versions={package: importlib.metadata.version(package) for package in ("onspect", "numpy")},
        seed=seed,
        data=data,
        training_images=len(found.images),
        training_fingerprint=fingerprint_set(found.fingerprints),
        trained=time,
        exported=time,
        parity=0.0,
        parity_images=0,
    )
