"""`Inspector`: a model file, loaded, that turns frames into verdicts."""

from __future__ import annotations

import copy
import dataclasses
import math
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onspect.runtime.errors import ImageError, ModelFileError, UncalibratedError
from onspect.runtime.images.decode import Frame, read_image, read_or_error
from onspect.runtime.images.placement import Placement
from onspect.runtime.images.preprocess import check_size, place, prepare, prepare_at
from onspect.runtime.inspection.regions import Region, find_regions_of_batch, move_to_frame
from onspect.runtime.inspection.verdict import FrameContext, Judgement, Verdict, decide, now
from onspect.runtime.model.file import ModelFile
from onspect.runtime.model.schema import ModelInfo, Rectangle, Threshold
from onspect.runtime.model.session import LoadedModel, load_model


@dataclass(frozen=True)
class Inspection:
    """A verdict with what it was seen from.

    frame: the source image as it came, None where it could not be read. error_map: float32 [h, w] at the model's
    working size, None for a fault. map_threshold, white_level: of the model that judged; they scale heat map and 16-bit
    frame in a picture, so a copy of an inspection keeps them (`dataclasses.replace`). placement: where the error map
    lies in the frame, None if it is the whole frame. ticket: the number of the PLC's trigger that the part belongs to,
    None without one. window: x, y, width, height of the part in the frame, None if the frame shows one part.
    """

    verdict: Verdict
    frame: Frame | None = field(repr=False, compare=False)
    error_map: NDArray[np.float32] | None = field(repr=False, compare=False)
    map_threshold: float
    white_level: int
    placement: Placement | None = field(default=None, compare=False)
    ticket: int | None = None
    window: Rectangle | None = field(default=None, compare=False)

    @property
    def part_frame(self) -> Frame | None:
        """The picture of the part alone, as it would be taught: the frame, or presence's window of it."""
        if self.frame is None or self.window is None:
            return self.frame
        x, y, width, height = self.window
        return self.frame[y : y + height, x : x + width]

    def plot(self, *, heat: bool = False, beside: bool = False, legend: bool = True) -> NDArray[np.uint8]:
        """Return the frame with verdict, outlines and boxes as a picture, uint8 [height, width, 3], BGR.

        The arguments are those of `draw_overlay`. Raises ImageError where there is no frame to draw on.
        """
        from onspect.runtime.inspection.visualization import draw_overlay  # it imports this module

        picture = draw_overlay(self, heat=heat, beside=beside, legend=legend)
        if picture is None:
            raise ImageError(f"there is no frame of {self.verdict.source!r} to draw on: {self.verdict.reason}")
        return picture

    def resize_error_map(self) -> NDArray[np.float32]:
        """Return the error map at the frame's size, float32 [height, width], interpolated; 0 outside a crop.

        Raises ImageError where there is no frame or no error map.
        """
        if self.frame is None or self.error_map is None:
            raise ImageError(f"there is no error map of {self.verdict.source!r}: {self.verdict.reason}")
        if self.placement is not None:
            return np.asarray(self.placement.map_in_frame(self.error_map), np.float32)
        import cv2

        height, width = self.frame.shape[:2]
        resized = cv2.resize(self.error_map, (width, height), interpolation=cv2.INTER_LINEAR)
        return np.asarray(resized, np.float32)

    def _repr_png_(self) -> bytes | None:
        """Return the picture of `plot` for a notebook; None where there is no frame."""
        from onspect.runtime.inspection.visualization import encode_png

        try:
            return encode_png(self.plot())
        except ImageError:
            return None  # the notebook shows the text instead

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
    """A frame on its way to a verdict."""

    width: int
    """Of the frame, in pixels; 0 if there is none."""

    height: int
    """Of the frame, in pixels; 0 if there is none."""

    image: NDArray[np.uint8] | None = field(default=None, repr=False, compare=False)
    """The model input, uint8 [height, width, channels]; None if none could be made."""

    frame: Frame | None = field(default=None, repr=False, compare=False)
    """The frame itself, for pictures; None if it is not kept."""

    error: ImageError | None = None
    """Why the frame must not be judged, None if it may be."""

    placement: Placement | None = field(default=None, compare=False)
    """Where the model input lies in the frame, None if it is the whole frame."""

    window: Rectangle | None = None
    """The place of the part in the frame, if presence found it; None if the frame shows one part."""

    @property
    def crop_size(self) -> tuple[int, int]:
        """Width and height of what the model input shows, in pixels of the frame."""
        placement = self.placement
        return (self.width, self.height) if placement is None else (placement.width, placement.height)

    @property
    def is_inferred(self) -> bool:
        """Whether the model's output has a row for this frame."""
        return self.image is not None or self.error is None


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
        self._file_info = model.info
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

    @property
    def file_threshold(self) -> Threshold:
        """The threshold in the model file, also if this inspector judges with another (`with_threshold`)."""
        assert self._file_info.threshold is not None  # else `threshold` has raised
        return self._file_info.threshold

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

    def infer(self, batch: NDArray[np.uint8]) -> Scored:
        """Run the model on prepared inputs, uint8 [n, height, width, channels]; needs no threshold."""
        score, error_map = self._session.run(["score", "error_map"], {"image": batch})
        return Scored(score, error_map)

    def run(self, batch: NDArray[np.uint8]) -> Scored:
        """Return what `infer` returns; the older name."""
        return self.infer(batch)

    def judge(
        self,
        frames: Sequence[Frame | ImageError | Prepared],
        scored: Scored | None,
        contexts: Sequence[FrameContext] | None = None,
        *,
        late_ms: float | None = None,
    ) -> list[Inspection]:
        """Compare scores with the threshold, find the regions, and make each frame's verdict.

        Parameters
        ----------
        frames: the frames in their order; an ImageError in a frame's place becomes its ``fault``.
        scored: what `infer` returned for the frames without those errors, None if there are none.
        contexts: where each frame comes from; by default all are "frame", numbered from 0.
        late_ms: the longest latency in milliseconds; a verdict that took longer becomes a ``fault``. None for any.

        Raises UncalibratedError if the model has no threshold, ValueError if the numbers of frames, contexts and
        scores do not match.
        """
        threshold = self.threshold
        items = [frame if isinstance(frame, Prepared) else self._describe_frame(frame) for frame in frames]
        if contexts is None:
            contexts = [FrameContext(index=index) for index in range(len(items))]
        findings = _find(items, scored, threshold)
        time_now, ended, share = now(), time.perf_counter(), 1000.0 / max(1, len(items))
        inspections = []
        for item, context, (verdict, reason, code, score, regions, error_map) in zip(
            items, contexts, findings, strict=True
        ):
            latency = round((ended - context.captured) * share, 3)
            if late_ms is not None and verdict != "fault" and latency > late_ms:
                verdict, code = "fault", "late"
                reason = f"the verdict took {latency:.0f} ms, and late_ms is {late_ms:g}"
                score, regions, error_map = None, (), None
            made = Verdict(
                source=context.source,
                index=context.index,
                time=time_now,
                verdict=verdict,
                score=score,
                threshold=threshold.score,
                regions=regions,
                latency_ms=latency,
                model=self.label,
                reason=reason,
                part=context.part,
                review_threshold=threshold.review,
                **_describe_pose(item.placement),
                code=code,
            )
            white_level = self.info.preprocess.white_level
            inspections.append(
                Inspection(
                    made,
                    item.frame,
                    error_map,
                    threshold.map,
                    white_level,
                    placement=item.placement,
                    window=item.window,
                )
            )
        return inspections

    def prepare_frame(self, frame: Frame | ImageError, *, keep: bool = True) -> Prepared:
        """Prepare a frame for `infer_frames` and `judge`; an ImageError is noted, not raised.

        keep: whether the inspection shall hold the frame.
        """
        if isinstance(frame, ImageError):
            return self._describe_frame(frame)
        kept = frame if keep else None
        try:
            placement = place(frame, self.info.preprocess)
            image = prepare_at(frame, self.info.preprocess, placement)
            return Prepared(frame.shape[1], frame.shape[0], image, kept, placement=placement)
        except ImageError as error:
            return Prepared(0, 0, frame=kept, error=error.with_traceback(None))  # its frames would live as long as it

    def _describe_frame(self, frame: Frame | ImageError) -> Prepared:
        """Return a frame, whose input is not at hand, as `judge` takes it."""
        if isinstance(frame, ImageError):
            return Prepared(0, 0, error=frame)
        height, width = frame.shape[:2]
        try:
            return Prepared(width, height, frame=frame, placement=place(frame, self.info.preprocess))
        except ImageError as error:
            return Prepared(width, height, frame=frame, error=error.with_traceback(None))

    def infer_frames(self, items: Sequence[Prepared]) -> Scored | None:
        """Run the model once on those of the prepared frames that have an input; None if none has."""
        images = [item.image for item in items if item.image is not None]
        if not images:
            return None
        # a view of one image: on a line, what has not run for a while takes ten times as long
        return self.infer(images[0][None] if len(images) == 1 else np.stack(images))

    def examine_batch(
        self, frames: Sequence[Frame | ImageError], contexts: Sequence[FrameContext] | None = None
    ) -> list[Inspection]:
        """Prepare, infer and judge frames in one run; arguments and errors as `judge`."""
        if contexts is None:
            contexts = [FrameContext(index=index) for index in range(len(frames))]
        items = [self.prepare_frame(frame) for frame in frames]
        return self.judge(items, self.infer_frames(items), contexts)

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

    def inspect(self, frame: Frame | ImageError | Path | str, *, source: str | None = None, index: int = 0) -> Verdict:
        """Judge one frame: HxW or HxWx3 (BGR), uint8 or uint16, or an image file. A ``fault`` if it cannot be judged.

        source: the name in the verdict; by default the file's path, or "frame". Raises UncalibratedError where the
        model has no threshold.
        """
        return self.examine(frame, source=source, index=index).verdict

    def examine(
        self, frame: Frame | ImageError | Path | str, *, source: str | None = None, index: int = 0
    ) -> Inspection:
        """Judge one frame or image file as `inspect` does, and keep the frame and its error map."""
        is_file = isinstance(frame, Path | str)
        context = FrameContext(source or (str(frame) if is_file else "frame"), index)
        return self.examine_batch([self.read(frame) if isinstance(frame, Path | str) else frame], [context])[0]

    def read(self, path: Path | str) -> Frame | ImageError:
        """Read an image file as `read_image` does; the reason why it cannot be judged is returned, not raised."""
        return read_or_error(path, partial(read_image, accepts=self.accepts))

    def inspect_many(
        self, paths: Iterable[Path | str] | Path | str, *, workers: int | None = None
    ) -> Iterator[Verdict]:
        """Judge image files in order, on all cores (or `workers` threads). An unreadable file is a ``fault``.

        paths: image files; or one file; or one folder, whose images are judged with those of its subfolders. Raises
        DatasetError if the folder cannot be read or has no image, UncalibratedError if the model has no threshold.
        """
        from onspect.runtime.inspection.batch import judge_files

        return judge_files(self, _list_paths(paths), workers=workers)

    def examine_many(
        self, paths: Iterable[Path | str] | Path | str, *, workers: int | None = None
    ) -> Iterator[Inspection]:
        """Judge image files as `inspect_many` does, and keep each frame and error map."""
        from onspect.runtime.inspection.batch import examine_files

        return examine_files(self, _list_paths(paths), workers=workers)


def _list_paths(paths: Iterable[Path | str] | Path | str) -> Iterable[Path | str]:
    if not isinstance(paths, Path | str):
        return paths
    from onspect.runtime.images.files import list_folder

    return list_folder(paths) if os.path.isdir(paths) else [paths]  # noqa: PTH112 - Path.is_dir raises for some names


def _describe_pose(placement: Placement | None) -> dict[str, float]:
    """Return what a verdict says of the part's pose, rounded to a hundredth of a pixel and of a degree."""
    pose = None if placement is None else placement.pose
    if pose is None:
        return {}
    return {"pose_x": round(pose.x, 2), "pose_y": round(pose.y, 2), "pose_angle": round(pose.angle, 2)}


_Finding = tuple[Judgement, str | None, str | None, float | None, tuple[Region, ...], NDArray[np.float32] | None]
"""Of one frame: verdict, reason and code of a fault, score, regions, error map."""


def _find(items: Sequence[Prepared], scored: Scored | None, threshold: Threshold) -> Iterator[_Finding]:
    """Yield what the model's output says of each frame."""
    rows = [item for item in items if item.is_inferred]
    reasons = [] if scored is None else scored.faults()
    if len(reasons) != len(rows):
        raise ValueError(f"{len(rows)} frames can be judged, and there are {len(reasons)} scores; give one for each")
    sound = [row for row, item in enumerate(rows) if item.error is None and reasons[row] is None]
    findings: list[_Finding] = [
        ("fault", reason, "model", None, (), None) if item.error is None else _describe_error(item.error)
        for item, reason in zip(rows, reasons, strict=True)
    ]
    if scored is not None and sound:
        scores, peaks = scored.score.tolist(), scored.peaks
        verdicts = [decide(scores[row], threshold) for row in sound]
        sizes = [rows[row].crop_size for row in sound]
        maps = scored.error_map if len(sound) == len(rows) else scored.error_map[sound]
        regions = find_regions_of_batch(maps, [peaks[row] for row in sound], threshold, sizes, verdicts)
        for row, verdict, found in zip(sound, verdicts, regions, strict=True):
            placement = rows[row].placement
            regions_of_frame = found if placement is None or not found else move_to_frame(found, placement)
            findings[row] = (verdict, None, None, scores[row], regions_of_frame, scored.error_map[row])
    inferred = iter(findings)
    return (next(inferred) if item.error is None or item.is_inferred else _describe_error(item.error) for item in items)


def _describe_error(error: ImageError) -> _Finding:
    return "fault", str(error), error.code, None, (), None


def _find_fault(score: float, lowest: float, highest: float) -> str | None:
    """Return the reason why the output for one image is invalid; lowest and highest are those of its error map."""
    if not math.isfinite(score):
        return f"the model's score is {score}"
    if not (math.isfinite(highest) and lowest >= 0.0):
        return "the model's error map has values that are not finite or below 0"
    return None
