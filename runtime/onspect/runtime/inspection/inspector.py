"""`Inspector`: a model file, loaded, that turns frames into verdicts."""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onspect.runtime.errors import ImageError, ModelFileError, UncalibratedError
from onspect.runtime.images.decode import Frame
from onspect.runtime.images.preprocess import check_size, prepare
from onspect.runtime.inspection.regions import Region, find_regions_of_batch
from onspect.runtime.inspection.verdict import Judgement, Verdict, decide, now
from onspect.runtime.model.file import ModelFile
from onspect.runtime.model.schema import ModelInfo, Threshold
from onspect.runtime.model.session import LoadedModel, load_model


@dataclass(frozen=True)
class Inspection:
    """A verdict with what it was seen from.

    frame: the source image as it came, None where it could not be read. error_map: float32 [h, w] at the model's
    working size, None for a fault. map_threshold, white_level: of the model that judged; they scale heat map and 16-bit
    frame in a picture, so a copy of an inspection keeps them (`dataclasses.replace`). ticket: the number of the PLC's
    trigger that the part belongs to, None without one.
    """

    verdict: Verdict
    frame: Frame | None = field(repr=False, compare=False)
    error_map: NDArray[np.float32] | None = field(repr=False, compare=False)
    map_threshold: float
    white_level: int
    ticket: int | None = None

    @classmethod
    def without_picture(cls, verdict: Verdict) -> Inspection:
        """Return the inspection of a verdict that was read back: frame and error map are gone, no picture is drawn."""
        return cls(verdict, frame=None, error_map=None, map_threshold=math.inf, white_level=65535)


@dataclass(frozen=True)
class Scored:
    """The model's output for a batch: score float32 [n] and error_map float32 [n, h, w], both >= 0, higher is worse."""

    score: NDArray[np.float32]
    error_map: NDArray[np.float32]

    @cached_property
    def peaks(self) -> list[float]:
        """The highest error of each map; NaN where the map has a NaN."""
        peaks: list[float] = self.error_map.reshape(len(self.score), -1).max(axis=1).tolist()
        return peaks

    def faults(self) -> list[str | None]:
        """Return for each image the reason why the model's output is invalid, or None if it is valid.

        A score must be finite. Every error of a map must be finite and at least 0. Line and calibration both ask here,
        so a threshold never rests on an output that the line refuses, nor the reverse.
        """
        lowest = self.error_map.reshape(len(self.score), -1).min(axis=1).tolist()
        return [
            _find_fault(score, low, high)
            for score, low, high in zip(self.score.tolist(), lowest, self.peaks, strict=True)
        ]


@dataclass(frozen=True)
class Prepared:
    """One model input, uint8 [height, width, channels], and the size in pixels of the frame that it was made of."""

    image: NDArray[np.uint8]
    width: int
    height: int


class Inspector:
    """A loaded model file that judges frames and image files; safe to share between threads.

    provider is ``auto`` (the best that this onnxruntime has), ``cpu``, ``cuda`` or ``tensorrt``; where the one asked
    for cannot be had, a warning is logged and the next best runs. ``openvino`` is OpenVINO's own runtime on the
    processor. threads is how many one run may use (1: many runs at a time, in threads, make the best use of the cores).

    Raises ModelFileError where the file cannot be used, ChoiceError for an unknown provider, ImportError where OpenVINO
    is asked for and not installed.
    """

    def __init__(self, path: Path | str | ModelFile | LoadedModel, *, provider: str = "auto", threads: int = 1) -> None:
        loaded = path if isinstance(path, LoadedModel) else load_model(path, provider=provider, threads=threads)
        model = loaded.file
        self.path = model.path
        self.info: ModelInfo = model.info
        self.sha256 = model.sha256
        self.label = f"{model.info.name}@{model.sha256[:12]}"
        """The model's name and the first digits of its checksum, as verdicts carry them."""
        self.provider = loaded.provider
        """What the model runs on: ``cpu``, ``cuda``, ``tensorrt`` or ``openvino``."""
        self._session = loaded.session

    @property
    def threshold(self) -> Threshold:
        """The file's threshold; raises UncalibratedError where it has none yet."""
        if self.info.threshold is None:
            raise UncalibratedError(
                f"{str(self.path)!r} has no threshold yet, so it cannot tell ok from ng: "
                f"run 'onspect calibrate {self.path} DATA' first"
            )
        return self.info.threshold

    def with_threshold(self, threshold: Threshold) -> Inspector:
        """Return an inspector of the same loaded model that judges with another threshold; the file stays as it is."""
        other = copy.copy(self)
        other.info = dataclasses.replace(self.info, threshold=threshold)
        return other

    def prepare(self, frame: Frame) -> NDArray[np.uint8]:
        """Turn a frame into one model input, uint8 [height, width, channels]; raises ImageError as `prepare` does."""
        return prepare(frame, self.info.preprocess)

    def accepts(self, width: int, height: int) -> None:
        """Raise ImageError where images of a size are not accepted; `read_image` asks before it decodes."""
        check_size(width, height, self.info.preprocess)

    def run(self, batch: NDArray[np.uint8]) -> Scored:
        """Score prepared inputs, uint8 [n, height, width, channels]."""
        score, error_map = self._session.run(["score", "error_map"], {"image": batch})
        return Scored(score, error_map)

    @property
    def reconstructs(self) -> bool:
        """Whether the file has an autoencoder of images; one of features, or a memory alone, is none."""
        return self.info.network is not None and not self.info.network.backbone

    def reconstruct(self, batch: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the autoencoder's reconstruction of prepared inputs, uint8 [n, height, width, channels] like them.

        Raises ModelFileError if the file has no autoencoder of images.
        """
        if not self.reconstructs:
            raise ModelFileError(f"{str(self.path)!r} has no autoencoder of images, so it reconstructs nothing")
        (reconstruction,) = self._session.run(["reconstruction"], {"image": batch})
        pixels = np.rint(np.moveaxis(reconstruction, 1, -1) * 255.0)
        return np.asarray(pixels.clip(0, 255), np.uint8)

    def encode(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the latent vectors of prepared inputs, float32 [n, latent]."""
        (latent,) = self._session.run(["latent"], {"image": batch})
        return np.asarray(latent, np.float32)

    def inspect(self, frame: Frame, *, source: str = "frame", index: int = 0) -> Verdict:
        """Judge one frame: HxW or HxWx3 (BGR), uint8 or uint16. What cannot be judged is a ``fault``, never ``ok``.

        Raises UncalibratedError where the model has no threshold.
        """
        return self.examine(frame, source=source, index=index).verdict

    def examine(self, frame: Frame, *, source: str = "frame", index: int = 0) -> Inspection:
        """Judge one frame as `inspect` does, and keep the frame and its error map."""
        return self.examine_batch([frame], sources=[source], first_index=index)[0]

    def inspect_many(self, paths: Iterable[Path | str], *, workers: int | None = None) -> Iterator[Verdict]:
        """Judge image files, in order, on all cores (or `workers` threads); unreadable files are ``fault``."""
        from onspect.runtime.inspection.batch import judge_files

        return judge_files(self, paths, workers=workers)

    def examine_many(self, paths: Iterable[Path | str], *, workers: int | None = None) -> Iterator[Inspection]:
        """Judge image files as `inspect_many` does, and keep each frame and error map."""
        from onspect.runtime.inspection.batch import examine_files

        return examine_files(self, paths, workers=workers)

    def examine_batch(
        self,
        frames: Sequence[Frame | ImageError],
        *,
        sources: Sequence[str],
        first_index: int,
        started: float | None = None,
        gate: Callable[[Frame, NDArray[np.uint8]], Future[None]] | None = None,
    ) -> list[Inspection]:
        """Judge frames in one run; an ImageError in a frame's place becomes its fault.

        started is the `time.perf_counter()` at which work on them began (now, by default); each verdict's latency is
        its share of the time since. gate is called with each frame and the input made of it, and looks at them while
        the model runs; an ImageError in what it returns is the frame's fault.
        """
        started = time.perf_counter() if started is None else started
        items = [self.prepare_or_error(frame) for frame in frames]
        batch = _stack(items)
        checks = _start_checks(gate, frames, items)  # as late as can be: from here on the interpreter is free
        scored = None if batch is None else self.run(batch)
        judged = self._judge_batch(items, scored, checks, sources, first_index, started)
        return [
            Inspection(
                verdict=verdict,
                frame=None if isinstance(frame, ImageError) else frame,
                error_map=error_map,
                map_threshold=self.threshold.map,
                white_level=self.info.preprocess.white_level,
            )
            for frame, (verdict, error_map) in zip(frames, judged, strict=True)
        ]

    def prepare_or_error(self, frame: Frame | ImageError) -> Prepared | ImageError:
        """Turn a frame into what `judge_prepared` takes; the ImageError that it brings is returned, not raised."""
        if isinstance(frame, ImageError):
            return frame
        try:
            return Prepared(self.prepare(frame), frame.shape[1], frame.shape[0])
        except ImageError as error:
            return error.with_traceback(None)  # its frames would live as long as it

    def score_prepared(self, items: Sequence[Prepared | ImageError]) -> Scored | None:
        """Score those of the prepared frames that can be judged in one run; None where there are none."""
        batch = _stack(items)
        return None if batch is None else self.run(batch)

    def judge_scored(
        self,
        items: Sequence[Prepared | ImageError],
        scored: Scored | None,
        *,
        sources: Sequence[str],
        first_index: int,
        started: float,
    ) -> list[Verdict]:
        """Judge prepared frames by what `score_prepared` made of them, as `examine_batch` does."""
        judged = self._judge_batch(items, scored, {}, sources, first_index, started)
        return [verdict for verdict, _ in judged]

    def _judge_batch(
        self,
        items: Sequence[Prepared | ImageError],
        scored: Scored | None,
        checks: dict[int, Future[None]],
        sources: Sequence[str],
        first_index: int,
        started: float,
    ) -> list[tuple[Verdict, NDArray[np.float32] | None]]:
        """Return each item's verdict and error map, None for a fault; scored is of those that can be judged."""
        threshold = self.threshold
        judged = iter(()) if scored is None else iter(_judge(items, scored, threshold, checks))
        outcomes = [_Outcome("fault", str(item)) if isinstance(item, ImageError) else next(judged) for item in items]
        time_now = now()
        latency = round((time.perf_counter() - started) * 1000.0 / max(1, len(items)), 3)
        return [
            (
                Verdict(
                    source=sources[offset],
                    index=first_index + offset,
                    time=time_now,
                    verdict=outcome.verdict,
                    score=outcome.score,
                    threshold=threshold.score,
                    regions=outcome.regions,
                    latency_ms=latency,
                    model=self.label,
                    reason=outcome.reason,
                    review_threshold=threshold.review,
                ),
                outcome.error_map,
            )
            for offset, outcome in enumerate(outcomes)
        ]


@dataclass(frozen=True)
class _Outcome:
    """What a verdict says of one image, and the error map behind it."""

    verdict: Judgement
    reason: str | None = None
    score: float | None = None
    regions: tuple[Region, ...] = ()
    error_map: NDArray[np.float32] | None = None


def _judge(
    items: Sequence[Prepared | ImageError], scored: Scored, threshold: Threshold, checks: Mapping[int, Future[None]]
) -> list[_Outcome]:
    """Return what the graph's answer says of each item that could be judged, in their order."""
    prepared = [(place, item) for place, item in enumerate(items) if isinstance(item, Prepared)]
    scores = scored.score.tolist()
    verdicts = [decide(score, threshold) for score in scores]
    faults = [
        _read_check(checks.get(place)) or fault for (place, _), fault in zip(prepared, scored.faults(), strict=True)
    ]
    sound = [number for number, fault in enumerate(faults) if fault is None]
    sizes = [(prepared[number][1].width, prepared[number][1].height) for number in sound]
    maps = scored.error_map if len(sound) == len(prepared) else scored.error_map[sound]
    judged, peaks = [verdicts[number] for number in sound], [scored.peaks[number] for number in sound]
    regions = dict(zip(sound, find_regions_of_batch(maps, peaks, threshold, sizes, judged), strict=True))
    return [
        _Outcome("fault", fault)
        if fault is not None
        else _Outcome(verdicts[number], None, scores[number], regions[number], scored.error_map[number])
        for number, fault in enumerate(faults)
    ]


def _find_fault(score: float, lowest: float, highest: float) -> str | None:
    """Return the reason why the output for one image is invalid; lowest and highest are those of its error map."""
    if not math.isfinite(score):
        return f"the model's score is {score}"
    if not (math.isfinite(highest) and lowest >= 0.0):
        return "the model's error map holds values that are not finite or below 0"
    return None


def _stack(items: Sequence[Prepared | ImageError]) -> NDArray[np.uint8] | None:
    """Return the inputs that can be judged as one batch, None where there are none."""
    good = [item.image for item in items if isinstance(item, Prepared)]
    if len(good) == 1:
        return good[0][None]  # on a line, where what has not run for a while takes ten times as long
    return np.stack(good) if good else None


def _start_checks(
    gate: Callable[[Frame, NDArray[np.uint8]], Future[None]] | None,
    frames: Sequence[Frame | ImageError],
    items: Sequence[Prepared | ImageError],
) -> dict[int, Future[None]]:
    """Hand what can be judged to the gate; return its answers to come, by place."""
    if gate is None:
        return {}
    return {
        place: gate(frame, item.image)
        for place, (frame, item) in enumerate(zip(frames, items, strict=True))
        if not isinstance(frame, ImageError) and isinstance(item, Prepared)
    }


def _read_check(check: Future[None] | None) -> str | None:
    """Return what the gate has against a frame; raises what is no ImageError."""
    if check is None:
        return None
    reason = check.exception()  # raised here it would hold on to the frame, in a circle, until Python looks for such
    if reason is not None and not isinstance(reason, ImageError):
        raise reason
    return None if reason is None else str(reason)
