"""Teaching: a finished model file from good pictures, with numpy, OpenCV and onnxruntime; and teaching it more."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from onspect.runtime.atomic import make_folder, sweep_abandoned, write_atomically
from onspect.runtime.binomial import rate_bound
from onspect.runtime.conformal import conformal, conformal_rank, format_rate
from onspect.runtime.dataset.folder import GOOD, training_images
from onspect.runtime.dataset.good_images import GoodImages, load_good_images
from onspect.runtime.dataset.near_duplicates import learn_looks
from onspect.runtime.errors import ChoiceError, DatasetError, ModelFileError, OutputError
from onspect.runtime.fingerprints import fingerprint_set, pack_fingerprints, unpack_fingerprints
from onspect.runtime.images.quality import span
from onspect.runtime.images.roi_mask import read_mask
from onspect.runtime.images.working_size import MULTIPLE, median_size, working_size
from onspect.runtime.inspection.verdict import now
from onspect.runtime.model.file import ModelFile, read_model_file, stamp
from onspect.runtime.model.schema import (
    Calibration,
    Lesson,
    Memory,
    ModelInfo,
    Preprocess,
    Provenance,
    Rule,
    Score,
    Stamp,
    Threshold,
)
from onspect.runtime.outliers import find_lone_scores
from onspect.runtime.teaching.base_file import (
    BaseFile,
    BaseInfo,
    edit_graph,
    fold_channels,
    read_base_file,
    split_metadata,
)
from onspect.runtime.teaching.extract import COPIES, Extractor, change_images, open_session
from onspect.runtime.teaching.fit import FittedMemory, Progress, fit_memory
from onspect.runtime.teaching.graph_values import Stored, fill, inspected_places
from onspect.runtime.teaching.memory import Features, learn_metric, nearest_distances, score_distances

BUDGET = 128 * 1024
"""Most pixels of the working size."""

OBJECT_SIDE = 64
"""Pictures with a side below this, in pixels, show a whole object and no places of it."""

FEWEST = 2
"""Pictures that it takes to teach: one shows nothing of how good parts differ."""

RATE = 0.01
"""Share of new good parts that may be rejected, where there are enough pictures to promise it."""

_SMALL = 192  # sides below this are enlarged to twice their length, for the deepest features to have enough places
_OBJECT_ENLARGED = 128  # the shorter side of pictures of whole objects
_BLUR = 16  # pixels of the working size over which what is painted over is smoothed
_MOST_TURNED = 100  # pictures up to which it is tried whether parts come turned
_TRIED = 4  # pictures on which that is tried
_GAIN = 0.03  # by which copies must lower the scores of pictures judged by the others to be kept
_SQUARE = 1.1  # ratio of the sides up to which an image can be turned by any angle
_CHECKED = 2

CROSS_CONFORMAL = "cross-conformal"
"""The policy of a threshold that teaching chose: each picture judged by a memory without it."""


@dataclass(frozen=True)
class Lone:
    """A good picture whose score stands alone, its score, and the threshold without it."""

    path: Path
    score: float
    threshold: float


@dataclass(frozen=True)
class Taught:
    """What `teach` made.

    info: what the file says. pictures: how many were taught now. rate: share of new good parts that the threshold
    promises to reject at most, on average. lone: good pictures whose score stands alone, highest first. trimmed: those
    that were left out for it.
    """

    path: Path
    info: ModelInfo
    pictures: int
    rate: float
    lone: tuple[Lone, ...] = field(default=())
    trimmed: tuple[Lone, ...] = field(default=())

    @property
    def promises(self) -> bool:
        """Whether the threshold is the one that teaching chose, and not one from a calibration on other images."""
        return self.info.calibration is not None and CROSS_CONFORMAL in self.info.calibration.policy

    def describe_support(self) -> str:
        """Return a sentence on what so many pictures can support."""
        calibration = self.info.calibration
        if calibration is None or not self.promises:
            return "The threshold is that of an earlier calibration; run 'onspect calibrate' again to choose a new one."
        count = len(calibration.good_scores)
        sentence = (
            f"With {count} good pictures the threshold rejects at most {format_rate(round(self.rate, 4))} of new good "
            "parts, on average."
        )
        if self.rate > RATE:
            needed = math.ceil(round(1.0 / RATE, 9)) - 1
            sentence += f" {needed} pictures are needed to promise {format_rate(RATE)}."
        bound = rate_bound(0, count)
        return f'{sentence} The pictures alone prove only "below {format_rate(round(bound, 3))}" with 95% confidence.'


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
    by_whole: bool | None = None,
    copies: str = "auto",
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
        A folder of good pictures (`layout.training_images`), or image files.
    output
        The model file, ending in ``.onnx``. It is written whole or not at all.
    base
        The base file that ``onspect backbone`` made.
    size
        Width and height to work at, in pixels, multiples of 32. None: the pictures' shape within `BUDGET` pixels.
    channels, white_level, any_size
        As in `load_good_images`.
    mask
        A black-and-white picture; black places are ignored (`read_mask`).
    by_whole
        Judge whole images instead of their places. None: where pictures have a side below 64 pixels.
    copies
        Changed copies of the pictures to teach as well: ``none``, ``flips``, ``turns``, or ``auto``, which tries on the
        pictures whether parts come turned.
    rate
        Share of new good parts that may be rejected, between 0 and 1. None: 1%, or as little as so many pictures can
        promise.
    strict
        Refuse pictures whose score stands alone.
    trim
        Leave out pictures whose score stands alone, once; with strict, those that stand alone then are refused.
    seed
        Of all that is drawn at random; the same seed gives the same file.
    progress
        Wraps long work, for a progress bar.

    Raises
    ------
    DatasetError
        If there are too few pictures, all are alike, some cannot be read, or (with strict) one stands alone.
    ChoiceError
        If an option has no such value, or the mask cannot be used.
    ModelFileError
        If the base file cannot be used.
    OutputError
        If the file cannot be written.
    """
    output = Path(output)
    _check_options(output, copies, rate, size)
    base = base if isinstance(base, BaseFile) else read_base_file(base)
    found = _load(pictures, size, channels, white_level, any_size, progress)
    _check_pictures(found)
    whole = _is_object(found) if by_whole is None else by_whole
    inspected = None if mask is None else read_mask(Path(mask), found.recipe)
    trimmed: tuple[Lone, ...] = ()
    while True:
        promised = _choose_rate(rate, len(found.images))
        filled = fill_graph(
            base.graph, found.images, mask=inspected, by_whole=whole, copies=copies, seed=seed, progress=progress
        )
        lone = _find_lone(found, filled.fitted, promised)
        if not trim or trimmed or not lone:
            break
        trimmed, found = lone, _leave_out(found, lone)
        _check_pictures(found)
    _refuse_lone(lone, strict=strict)
    info = _describe(output.stem, base.info, found, filled, inspected, promised, _name(pictures), seed)
    info = _note_trimmed(info, trimmed)
    looks = learn_looks(found.images, list(found.fingerprints))
    make_folder(output.parent)
    write_atomically(output, stamp(filled.graph, info, found.fingerprints, looks))
    sweep_abandoned(output)
    return Taught(output, read_model_file(output).info, len(found.images), promised, lone, trimmed)


def add(
    model: Path | str,
    pictures: Path | str | Sequence[Path | str],
    *,
    rate: float | None = None,
    strict: bool = False,
    trim: bool = False,
    progress: Progress | None = None,
) -> Taught:
    """Teach a model file more good pictures; the file is replaced whole or not at all.

    Vectors are added to the memory and none is taken away, so no score rises. Pictures that were taught before are left
    out. The threshold is chosen again where `teach` chose it; one from ``onspect calibrate`` stays.

    Raises ModelFileError if the file has no memory or its memory is full, DatasetError as `teach` does.
    """
    file = read_model_file(model)
    memory = _require_memory(file)
    found = _load_like(pictures, file.info.preprocess, progress)
    known = {name for lesson in memory.lessons for name in unpack_fingerprints(lesson.fingerprints)}
    fresh = [place for place, name in enumerate(found.fingerprints) if name not in known]
    if not fresh:
        raise DatasetError(
            f"all {len(found.images)} pictures of {_name(pictures)!r} were taught already; nothing was changed"
        )
    found = _take(found, fresh)
    graph, _ = split_metadata(file.path, file.data)
    extractor = Extractor.open(graph)
    copied = COPIES[memory.copies]
    trimmed: tuple[Lone, ...] = ()
    while True:
        taught = extractor.extract(found.images, progress=progress)
        if copied:
            changed = change_images(found.images, copied)
            taught = Features.join([taught, extractor.extract(changed, progress=progress)])
        owners = np.tile(np.arange(len(found.images)), 1 + len(copied))
        grown, scores = Stored.read(graph).grow(graph, taught, owners, by_whole=memory.by_whole, path=file.path)
        lone = _find_lone_additions(file, found, scores, rate)
        if not trim or trimmed or not lone:
            break
        trimmed, found = lone, _leave_out(found, lone)
        if not len(found.images):
            raise DatasetError(
                f"the scores of all {len(lone)} new pictures stand alone; look at them, or teach without --trim"
            )
    _refuse_lone(lone, strict=strict)
    content = edit_graph(graph, grown.arrays())
    info = _note_trimmed(_lengthen(file, memory, found, grown, scores, rate, _name(pictures)), trimmed)
    training = {*file.training_images, *found.fingerprints}
    write_atomically(file.path, stamp(content, info, training))
    sweep_abandoned(file.path)
    written = read_model_file(file.path).info
    total = 1 if written.calibration is None else len(written.calibration.good_scores)
    return Taught(file.path, written, len(found.images), _choose_rate(rate, total), lone, trimmed)


def take_back(model: Path | str) -> Taught:
    """Take the last addition to a model file back; raises ModelFileError if there is none."""
    file = read_model_file(model)
    memory = _require_memory(file)
    if len(memory.lessons) < 2:
        raise ModelFileError(f"{str(file.path)!r} was taught only once; there is no addition to take back")
    last, before = memory.lessons[-1], memory.lessons[-2]
    graph, _ = split_metadata(file.path, file.data)
    stored = Stored.read(graph)
    shorter = Stored(
        stored.vectors[: before.vectors], stored.map_vectors[: before.map_vectors], stored.whole[: before.whole_vectors]
    )
    info = dataclasses.replace(file.info, memory=dataclasses.replace(memory, lessons=memory.lessons[:-1]))
    if len(info.history) > last.stamps:
        earlier = info.history[last.stamps]
        info = dataclasses.replace(
            info,
            threshold=earlier.threshold,
            calibration=earlier.calibration,
            history=info.history[: last.stamps],
        )
    taken = set(unpack_fingerprints(last.fingerprints))
    info = _recount(info, file.training_images - taken)
    write_atomically(file.path, stamp(edit_graph(graph, shorter.arrays()), info, file.training_images - taken))
    sweep_abandoned(file.path)
    written = read_model_file(file.path).info
    total = 1 if written.calibration is None else len(written.calibration.good_scores)
    return Taught(file.path, written, last.pictures, _choose_rate(None, total))


def _check_options(output: Path, copies: str, rate: float | None, size: tuple[int, int] | None) -> None:
    if output.suffix.lower() != ".onnx":
        raise OutputError(f"the model file {str(output)!r} must end in .onnx")
    if copies not in ("auto", *COPIES):
        raise ChoiceError(f"copies is {copies!r}; choose auto, {', '.join(COPIES)}")
    if rate is not None and not 0.0 < rate < 1.0:
        raise ChoiceError(f"rate is {rate}; give a share between 0 and 1, such as 0.01")
    if size is not None and (min(size) < 32 or size[0] % 32 or size[1] % 32):
        raise ChoiceError(f"size is {size[0]}x{size[1]}; give multiples of 32 pixels, such as 256x256")


def choose_working_size(shapes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Return the height and width at which a memory works on images of these shapes: multiples of 32.

    Images with a side below 192 pixels are enlarged to twice their size, those of whole objects, with a side below 64
    pixels, until their shorter side has 128. No others are enlarged: their sides are rounded down.
    """
    height, width = median_size(shapes)  # one small picture among many must not enlarge them all
    smallest = min(height, width)
    factor = 1.0
    if smallest < _SMALL:
        factor = _OBJECT_ENLARGED / smallest if smallest < OBJECT_SIDE else 2.0
    median = tuple(max(MULTIPLE, int(side * factor + 1e-6) // MULTIPLE * MULTIPLE) for side in (height, width))
    return working_size([(median[0], median[1])], BUDGET)


def _load(
    pictures: Path | str | Sequence[Path | str],
    size: tuple[int, int] | None,
    channels: int | None,
    white_level: int,
    any_size: bool,
    progress: Progress | None,
) -> GoodImages:
    def choose(shapes: Sequence[tuple[int, int]], _: int) -> tuple[int, int]:
        return choose_working_size(shapes) if size is None else (size[1], size[0])

    return load_good_images(
        _list(pictures), choose, channels=channels, white_level=white_level, any_size=any_size, progress=progress
    )


def _load_like(
    pictures: Path | str | Sequence[Path | str], recipe: Preprocess, progress: Progress | None
) -> GoodImages:
    """Read pictures as a model takes them; raises DatasetError where it does not accept one."""
    found = load_good_images(
        _list(pictures),
        lambda *_: (recipe.height, recipe.width),
        channels=recipe.channels,
        white_level=recipe.white_level,
        any_size=True,
        progress=progress,
    )
    limits = recipe.source
    for path, (height, width) in zip(found.paths, found.shapes, strict=True):
        for side, accepted in ((width, limits.width), (height, limits.height)):
            if accepted is not None and not accepted[0] <= side <= accepted[1]:
                raise DatasetError(
                    f"{str(path)!r} is {width}x{height} pixels, which the model does not accept; take pictures of the "
                    "size that was taught, or teach again with --any-size"
                )
    return found


def _list(pictures: Path | str | Sequence[Path | str]) -> list[Path]:
    if isinstance(pictures, str | Path):
        return training_images(Path(pictures))
    paths = [Path(path) for path in pictures]
    if not paths:
        raise DatasetError("there are no pictures to teach; give a folder of good pictures")
    return paths


def _name(pictures: Path | str | Sequence[Path | str]) -> str:
    return Path(pictures).resolve().name if isinstance(pictures, str | Path) else "pictures"


def _check_pictures(found: GoodImages) -> None:
    count = len(found.images)
    if count < FEWEST:
        raise DatasetError(
            f"there is only 1 picture, {str(found.paths[0])!r}, which shows nothing of how good parts differ; give at "
            "least 2, better 10 or more"
        )
    if (found.images == found.images[0]).all():
        raise DatasetError(
            f"all {count} pictures show the very same pixels, such as {str(found.paths[0])!r}; give pictures of "
            "different good parts"
        )


def _is_object(found: GoodImages) -> bool:
    return min(median_size(found.shapes)) < OBJECT_SIDE


@dataclass(frozen=True)
class FilledGraph:
    """A graph with a memory: its bytes, the memory, and which changed copies of the pictures it was taught."""

    graph: bytes = field(repr=False)
    fitted: FittedMemory
    copies: str

    def describe(self, base: BaseInfo, fingerprints: Sequence[str], data: str) -> Memory:
        """Return what a model file says of the memory; data is the name of the pictures' folder."""
        fitted = self.fitted
        lesson = Lesson(
            time=now(),
            data=data,
            pictures=len(fitted.scores),
            fingerprints=pack_fingerprints(fingerprints),
            vectors=len(fitted.vectors),
            map_vectors=len(fitted.map_vectors),
            whole_vectors=len(fitted.whole),
            stamps=0,
        )
        return Memory(
            backbone=base.backbone,
            weights_sha256=base.weights_sha256,
            dimensions=fitted.vectors.shape[1],
            by_whole=fitted.by_whole,
            copies=self.copies,
            lessons=(lesson,),
        )


def fill_graph(
    graph: bytes,
    images: NDArray[np.uint8],
    *,
    mask: NDArray[np.bool_] | None = None,
    by_whole: bool = False,
    copies: str = "auto",
    seed: int = 0,
    progress: Progress | None = None,
) -> FilledGraph:
    """Fit a memory to prepared pictures and put it into a base file's graph.

    Parameters
    ----------
    graph
        Of a base file.
    images
        Uint8 [n, height, width, channels].
    mask
        Bool [height, width], True where parts are inspected; None for everywhere.
    by_whole, copies, seed, progress
        As in `teach`.

    Raises
    ------
    ModelFileError
        If the graph cannot be used.
    """
    values = fold_channels(graph, images.shape[3])
    if mask is not None:
        typical = np.moveaxis(images.mean(axis=0, dtype=np.float32), -1, 0)
        keep = mask.astype(np.float32)
        values["mask.keep"] = keep[None, None]
        values["mask.fill"] = ((1.0 - keep) * _smooth(typical) - 127.5)[None].astype(np.float32)
    height, width, channels = images.shape[1:]
    prepared = edit_graph(graph, values, input_shape=(height, width, channels))
    extractor = Extractor.open(prepared)
    copies, fitted = _fit(extractor, images, copies, by_whole, mask, seed, progress)
    content = edit_graph(prepared, fill(fitted, mask))
    del extractor, prepared  # before another session opens: the device has little memory
    _check_graph(content, images)
    return FilledGraph(content, fitted, copies)


def _smooth(planes: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.stack([cv2.GaussianBlur(plane, (0, 0), _BLUR) for plane in planes]).astype(np.float32)


def _fit(
    extractor: Extractor,
    images: NDArray[np.uint8],
    copies: str,
    whole: bool,
    mask: NDArray[np.bool_] | None,
    seed: int,
    progress: Progress | None,
) -> tuple[str, FittedMemory]:
    """Return which changed copies are taught as well, and the memory."""
    features = extractor.extract(images, progress=progress)
    if copies == "auto":
        turns = len(images) <= _MOST_TURNED and mask is None and not whole
        copies = _choose_copies(extractor, images, features, seed) if turns else "none"
    changes = COPIES[copies]
    if changes:
        changed = change_images(images, changes)
        label = f"extracting features of {copies}"
        features = Features.join([features, extractor.extract(changed, progress=progress, label=label)])
    owners = np.tile(np.arange(len(images)), 1 + len(changes))
    places = inspected_places(mask, features.middle.shape[2:])
    return copies, fit_memory(features, owners, by_whole=whole, inspected=places, seed=seed, progress=progress)


def _choose_copies(extractor: Extractor, images: NDArray[np.uint8], features: Features, seed: int) -> str:
    """Return which changed copies make the pictures look more familiar to each other: then parts come turned.

    Where parts always lie alike, a copy of another picture is no nearer than the picture itself, and a part that is
    turned stays a defect.
    """
    some = np.arange(min(len(images), _TRIED))
    metric = learn_metric(features, len(images), seed=seed)
    own = metric.patches(features.take(some))
    shape = features.middle.shape[2:]

    def judge(memory: NDArray[np.float32]) -> float:
        """Return the median score of each picture by the others; memory is [copies, pictures, places, dimensions]."""
        scores = [
            score_distances(nearest_distances(own[[place]], _flat(np.delete(memory, place, axis=1))), shape)
            for place in some
        ]
        return float(np.median(np.concatenate(scores)))

    memory = own[None]
    chosen, best = "none", judge(memory)
    sides = images.shape[1] / images.shape[2]
    for name in ("flips", "turns") if 1 / _SQUARE <= sides <= _SQUARE else ("flips",):
        changed = metric.patches(extractor.extract(change_images(images[some], COPIES[name])))
        score = judge(np.concatenate([memory, changed.reshape(-1, *own.shape)]))
        if score > (1.0 - _GAIN) * best:
            break
        chosen, best = name, score
    return chosen


def _flat(memory: NDArray[np.float32]) -> NDArray[np.float32]:
    return memory.reshape(-1, memory.shape[-1])


def _require_memory(file: ModelFile) -> Memory:
    if file.info.memory is None:
        raise ModelFileError(
            f"{str(file.path)!r} has no memory of good parts; make a file with 'onspect teach GOOD --base base.onnx'"
        )
    return file.info.memory


def _check_graph(content: bytes, images: NDArray[np.uint8]) -> None:
    """Raise ModelFileError where the finished graph does not score the pictures as teaching does."""
    session = open_session(content)
    for image in images[:_CHECKED]:
        score, error_map = session.run(["score", "error_map"], {"image": image[None]})
        if not (np.isfinite(score).all() and np.isfinite(error_map).all()):
            raise ModelFileError(
                f"the taught model scores {float(score[0])} on one of its own pictures; the base file does not do for "
                "these pictures, so nothing was written"
            )


def _choose_rate(rate: float | None, count: int) -> float:
    """Return the share of false rejects that is promised: as asked for, or the least that so many pictures can.

    Raises DatasetError if so many pictures cannot promise what was asked for.
    """
    least = 1.0 / (count + 1)
    if rate is None:
        return max(RATE, least)
    if conformal_rank(count, rate) > count:
        needed = math.ceil(round(1.0 / rate, 9)) - 1
        raise DatasetError(
            f"--max-fpr {format_rate(rate)} needs at least {needed} good pictures to promise that, and there are "
            f"{count}: add {needed - count}, or ask for {format_rate(math.ceil(1e4 * least) / 1e4)} or more"
        )
    return rate


def _take(found: GoodImages, places: Sequence[int]) -> GoodImages:
    """Return some of the images."""
    return dataclasses.replace(
        found,
        paths=tuple(found.paths[place] for place in places),
        images=found.images[list(places)],
        fingerprints=tuple(found.fingerprints[place] for place in places),
        shapes=[found.shapes[place] for place in places],
    )


def _leave_out(found: GoodImages, lone: Sequence[Lone]) -> GoodImages:
    left_out = {item.path for item in lone}
    return _take(found, [place for place, path in enumerate(found.paths) if path not in left_out])


def _note_trimmed(info: ModelInfo, trimmed: Sequence[Lone]) -> ModelInfo:
    """Let the policy say how many pictures were left out."""
    if not trimmed or info.calibration is None or CROSS_CONFORMAL not in info.calibration.policy:
        return info
    words = f" ({len(trimmed)} good image{'s' * (len(trimmed) != 1)} left out by --trim)"
    policy = info.calibration.policy + words
    return dataclasses.replace(info, calibration=dataclasses.replace(info.calibration, policy=policy))


def _find_lone_additions(
    file: ModelFile, found: GoodImages, scores: NDArray[np.float32], rate: float | None
) -> tuple[Lone, ...]:
    """Return the new pictures whose score stands alone among all, with the threshold without them."""
    old, threshold = file.info.calibration, file.info.threshold
    earlier = np.array(() if old is None else old.good_scores, np.float64)
    before = np.delete(earlier, find_lone_scores(earlier))  # taught nevertheless, and no measure for others
    every = np.concatenate([before, scores.astype(np.float64)])
    among_all = {place - len(before) for place in find_lone_scores(every) if place >= len(before)}
    lone = sorted(among_all.union(find_lone_scores(scores.tolist())), key=lambda place: -float(scores[place]))
    if not lone:
        return ()
    others = np.concatenate([earlier, np.delete(scores.astype(np.float64), lone)])
    if old is None or threshold is None or CROSS_CONFORMAL not in old.policy:
        without = 0.0 if threshold is None else threshold.score  # an earlier calibration's stays
    else:
        least = 1.0 / (len(others) + 1)
        without = conformal(others, max(RATE if rate is None else rate, least))
    return tuple(Lone(found.paths[place], float(scores[place]), without) for place in lone)


def _find_lone(found: GoodImages, fitted: FittedMemory, rate: float) -> tuple[Lone, ...]:
    """Return the pictures whose score stands alone, with the threshold without them."""
    places = find_lone_scores(fitted.scores.tolist())
    if not places:
        return ()
    others = np.delete(fitted.scores, places).astype(np.float64)
    without = conformal(others, max(rate, 1.0 / (len(others) + 1)))
    return tuple(Lone(found.paths[place], float(fitted.scores[place]), without) for place in places)


def _refuse_lone(lone: Sequence[Lone], *, strict: bool) -> None:
    if strict and lone:
        names = ", ".join(repr(str(item.path)) for item in lone)
        raise DatasetError(
            f"the score of {names} stands alone among the good pictures, as that of a defective part does; remove it, "
            "leave it out with --trim, or teach without --strict; nothing was written"
        )


def fit_threshold(
    fitted: FittedMemory, rate: float, fingerprints: Sequence[str], data: str
) -> tuple[Threshold, Calibration]:
    """Return the threshold that the pictures' own scores support, and its evidence.

    rate: share of new good parts that may be rejected. fingerprints: of the pictures. data: their folder's name.
    """
    scores = fitted.scores.astype(np.float64)
    threshold = Threshold(score=conformal(scores, rate), map=fitted.map_cut)
    return threshold, _make_calibration(scores, threshold, rate, fingerprints, data)


def _make_calibration(
    scores: NDArray[np.float64], threshold: Threshold, rate: float, fingerprints: Sequence[str], data: str
) -> Calibration:
    rejected = int((scores >= threshold.score).sum())
    rule = Rule("conformal", rate=rate)
    return Calibration(
        policy=f"false rejects of new good parts at most {format_rate(round(rate, 4))} ({CROSS_CONFORMAL})",
        data=data,
        counts={GOOD: len(scores)},
        auroc=None,
        aupr=None,
        true_ng=0,
        false_ng=rejected,
        true_ok=len(scores) - rejected,
        false_ok=0,
        images=fingerprint_set(fingerprints),
        time=now(),
        training_images=len(scores),
        good_scores=tuple(np.sort(scores).tolist()),
        rule=rule,
        map_rule=Rule("pixel_fpr", rate=0.001, value=threshold.map),
        fingerprints=pack_fingerprints(fingerprints),
    )


def _describe(
    name: str,
    base: BaseInfo,
    found: GoodImages,
    filled: FilledGraph,
    mask: NDArray[np.bool_] | None,
    rate: float,
    data: str,
    seed: int,
) -> ModelInfo:
    threshold, calibration = fit_threshold(filled.fitted, rate, found.fingerprints, data)
    time = now()
    return ModelInfo(
        name=name,
        preprocess=found.recipe,
        network=None,
        score=Score("memory", 0.0, inspected=1.0 if mask is None else float(mask.mean())),
        provenance=Provenance(
            versions={package: importlib.metadata.version(package) for package in ("onspect", "numpy")},
            seed=seed,
            data=data,
            training_images=len(found.images),
            training_fingerprint=fingerprint_set(found.fingerprints),
            trained=time,
            exported=time,
            parity=0.0,
            parity_images=0,
        ),
        threshold=threshold,
        calibration=calibration,
        appearance=span(found.images),
        memory=filled.describe(base, found.fingerprints, data),
    )


def _lengthen(
    file: ModelFile,
    memory: Memory,
    found: GoodImages,
    grown: Stored,
    scores: NDArray[np.float32],
    rate: float | None,
    data: str,
) -> ModelInfo:
    """Return what a file says after an addition."""
    info = file.info
    lesson = Lesson(
        time=now(),
        data=data,
        pictures=len(found.images),
        fingerprints=pack_fingerprints(found.fingerprints),
        vectors=len(grown.vectors),
        map_vectors=len(grown.map_vectors),
        whole_vectors=len(grown.whole),
        stamps=len(info.history),
    )
    info = dataclasses.replace(info, memory=dataclasses.replace(memory, lessons=(*memory.lessons, lesson)))
    info = _recount(info, file.training_images | set(found.fingerprints))
    old, threshold = info.calibration, info.threshold
    if threshold is None or old is None or CROSS_CONFORMAL not in old.policy:
        return info
    every = np.concatenate([np.array(old.good_scores), scores.astype(np.float64)])
    promised = _choose_rate(rate, len(every))
    fingerprints = [*unpack_fingerprints(old.fingerprints), *found.fingerprints]
    moved = dataclasses.replace(threshold, score=conformal(every, promised))
    calibration = _make_calibration(every, moved, promised, fingerprints, old.data)
    history = (*info.history, Stamp(threshold, old))
    return dataclasses.replace(info, threshold=moved, calibration=calibration, history=history)


def _recount(info: ModelInfo, fingerprints: frozenset[str] | set[str]) -> ModelInfo:
    """Return what a file says of the pictures it was made from, after their number has changed."""
    assert info.memory is not None
    source = dataclasses.replace(
        info.provenance,
        training_images=info.memory.pictures,
        training_fingerprint=fingerprint_set(fingerprints),
    )
    return dataclasses.replace(info, provenance=source)
