"""`Inspector`: a loaded model file that turns frames into verdicts."""

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
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onspect.runtime.errors import ImageError, ModelFileError, UncalibratedError
from onspect.runtime.images.decode import Frame, read_image, read_or_error
from onspect.runtime.images.preprocess import check_size, place, prepare, prepare_at
from onspect.runtime.inspection.regions import Region, find_regions_of_batch, move_to_frame
from onspect.runtime.inspection.verdict import FrameContext, Verdict, decide, now
from onspect.runtime.judgement import Judgement
from onspect.runtime.model.file import ModelFile
from onspect.runtime.model.schema import ModelInfo, Rectangle, Threshold
from onspect.runtime.model.session import LoadedModel, load_model
from onspect.runtime.records import quick_init

if TYPE_CHECKING:
    from onspect.runtime.images.placement import Placement


@quick_init
@dataclass(frozen=True)
class Inspection:
    """A verdict with its frame and error map."""

    verdict: Verdict
    """The verdict."""

    frame: Frame | None = field(repr=False, compare=False)
    """The source image, unchanged; None if it could not be read."""

    error_map: NDArray[np.float32] | None = field(repr=False, compare=False)
    """float32 [h, w] at the model's working size; None for a fault."""

    map_threshold: float
    """Cut of the error map of the model that judged. It scales the heat of a picture."""

    white_level: int
    """White level of that model. It scales a 16-bit frame in a picture."""

    placement: Placement | None = field(default=None, repr=False, compare=False)
    """Where the error map is in the frame; None if it covers the whole frame."""

    ticket: int | None = None
    """Number of the PLC's trigger of the part, None without one."""

    window: Rectangle | None = field(default=None, compare=False)
    """x, y, width and height of the part in the frame, in pixels; None if the frame shows one part."""

    @property
    def part_frame(self) -> Frame | None:
        """The picture of the part alone, as it would be taught: the frame, or the window in it that presence
        found.
        """
        if self.frame is None or self.window is None:
            return self.frame
        x, y, width, height = self.window
        return self.frame[y : y + height, x : x + width]

    def plot(self, *, heat: bool = False, beside: bool = False, legend: bool = True) -> NDArray[np.uint8]:
        """Return the frame with verdict, outlines and boxes.

        Parameters
        ----------
        heat
            Colour the error map over the image too, whatever the verdict.
        beside
            Put the image without marks to the left.
        legend
            Explain the marks below the image.

        Returns
        -------
        NDArray[np.uint8]
            uint8 [height, width, 3], BGR.

        Raises
        ------
        ImageError
            If there is no frame to draw on.
        """
        from onspect.runtime.inspection.visualization import draw_overlay  # it imports this module

        picture = draw_overlay(self, heat=heat, beside=beside, legend=legend)
        if picture is None:
            raise ImageError(f"there is no frame of {self.verdict.source!r} to draw on: {self.verdict.reason}")
        return picture

    def resize_error_map(self) -> NDArray[np.float32]:
        """Return the error map at the size of the frame, interpolated.

        Returns
        -------
        NDArray[np.float32]
            float32 [height, width]; 0 outside a crop.

        Raises
        ------
        ImageError
            If there is no frame or no error map.
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
        """Return the picture of `plot` for a notebook, None if there is no frame."""
        from onspect.runtime.inspection.visualization import encode_png

        try:
            return encode_png(self.plot())
        except ImageError:
            return None  # the notebook shows the text instead

    @classmethod
    def without_picture(cls, verdict: Verdict) -> Inspection:
        """Return the inspection of a verdict that was read back from a file.

        Parameters
        ----------
        verdict
            The verdict.

        Returns
        -------
        Inspection
            An inspection that has no frame and no error map, so it cannot be drawn.
        """
        return cls(verdict, frame=None, error_map=None, map_threshold=math.inf, white_level=65535)


@quick_init
@dataclass(frozen=True)
class Scored:
    """The model's output for a batch. Higher values are worse."""

    score: NDArray[np.float32]
    """float32 [n], 0 or more."""

    error_map: NDArray[np.float32]
    """float32 [n, h, w], 0 or more. Maps of different sizes: an array of objects [n], the maps."""

    @cached_property
    def peaks(self) -> list[float]:
        """The highest error of each map; NaN if the map has a NaN."""
        if self.error_map.ndim == 1:
            return [float(one.max()) for one in self.error_map]
        peaks: list[float] = self.error_map.reshape(len(self.score), -1).max(axis=1).tolist()
        return peaks

    @staticmethod
    def join(parts: Sequence[Scored]) -> Scored:
        """Join the outputs for single images.

        Parameters
        ----------
        parts
            Outputs for one image each. Their error maps may have different sizes.

        Returns
        -------
        Scored
            One output.
        """
        maps = np.empty(len(parts), object)
        for number, part in enumerate(parts):
            maps[number] = part.error_map[0]
        return Scored(np.concatenate([part.score for part in parts]), maps)

    def faults(self) -> list[str | None]:
        """Return for each image the reason why the model's output is invalid, or None if it is valid.

        A score must be finite. Every error of a map must be finite and at least 0. The line and the calibration
        both use this check. So no threshold is based on an output that the line refuses.

        Returns
        -------
        list[str or None]
            One entry for each image.
        """
        if self.error_map.ndim == 1:
            lowest = [float(one.min()) for one in self.error_map]
        else:
            lowest = self.error_map.reshape(len(self.score), -1).min(axis=1).tolist()
        return [
            _find_fault(score, low, high)
            for score, low, high in zip(self.score.tolist(), lowest, self.peaks, strict=True)
        ]


@quick_init
@dataclass(frozen=True)
class Prepared:
    """A frame that is prepared for a verdict."""

    width: int
    """Width of the frame in pixels; 0 without a frame."""

    height: int
    """Height of the frame in pixels; 0 without a frame."""

    image: NDArray[np.uint8] | None = field(default=None, repr=False, compare=False)
    """The model input, uint8 [height, width, channels]; None if it could not be made."""

    frame: Frame | None = field(default=None, repr=False, compare=False)
    """The frame itself, for pictures; None if it is not kept."""

    error: ImageError | None = None
    """Reason why the frame must not be judged, otherwise None."""

    placement: Placement | None = field(default=None, compare=False)
    """Where the model input is in the frame, None if it is the whole frame."""

    window: Rectangle | None = None
    """Place of the part in the frame that presence found; None if the frame shows one part."""

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

    Parameters
    ----------
    path
        The model file, or its content or session if they were loaded before.
    provider
        ``auto`` (the best that this onnxruntime has), ``cpu``, ``cuda`` or ``tensorrt``. If it is not
        available, a warning is logged and the next best one runs. ``openvino`` is OpenVINO's own runtime on the
        processor. ``openvino-bf16`` computes in bfloat16 first, and again in float32 if the score is near a threshold;
        the file must have a margin (`onspect bench --margin`).
    threads
        Number of threads that one run may use. With 1, many runs in parallel threads use the cores best.

    Raises
    ------
    ModelFileError
        If the file cannot be used.
    ChoiceError
        If the provider is unknown, or the processor has no bfloat16.
    ImportError
        If OpenVINO is chosen and not installed.
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
        """What the model runs on: ``cpu``, ``cuda``, ``tensorrt``, ``openvino`` or ``openvino-bf16``."""
        self._session, self._fast = loaded.session, loaded.fast

    def __repr__(self) -> str:
        cut = "no threshold" if self.info.threshold is None else f"ng from {self.info.threshold.score:.6g}"
        return f"<Inspector {self.label}, {cut}, on {self.provider}>"

    @property
    def threshold(self) -> Threshold:
        """The threshold that this inspector judges with.

        Raises
        ------
        UncalibratedError
            If the file has no threshold yet.
        """
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
        """Return an inspector of the same loaded model with another threshold.

        Parameters
        ----------
        threshold
            The other threshold.

        Returns
        -------
        Inspector
            The inspector. The file stays unchanged.
        """
        other = copy.copy(self)
        other.info = dataclasses.replace(self.info, threshold=threshold)
        return other

    def prepare(self, frame: Frame) -> NDArray[np.uint8]:
        """Turn a frame into one model input.

        Parameters
        ----------
        frame
            [height, width] or [height, width, 3], BGR; uint8 or uint16.

        Returns
        -------
        NDArray[np.uint8]
            uint8 [height, width, channels]. Height and width depend on the frame if the model keeps its aspect ratio.

        Raises
        ------
        ImageError
            If the model does not accept the frame, or the part is not found in it.
        """
        return prepare(frame, self.info.preprocess)

    def accepts(self, width: int, height: int) -> None:
        """Check that images of a size are accepted; `read_image` asks before it decodes.

        Parameters
        ----------
        width
            Width in pixels.
        height
            Height in pixels.

        Raises
        ------
        ImageError
            If the size is not accepted.
        """
        check_size(width, height, self.info.preprocess)

    def infer(self, batch: NDArray[np.uint8]) -> Scored:
        """Run the model on prepared inputs. It needs a threshold with ``openvino-bf16`` only.

        With ``openvino-bf16``, inputs whose score in bfloat16 is near a threshold run again in float32. Score and error
        map of an input are from the same run.

        Parameters
        ----------
        batch
            uint8 [n, height, width, channels].

        Returns
        -------
        Scored
            Score and error map of each input.

        Raises
        ------
        UncalibratedError
            If the model has no threshold and runs on ``openvino-bf16``.
        """
        if self._fast is None:
            return _run(self._session, batch)
        from onspect.runtime.inspection.doubtful import find_doubtful  # only openvino-bf16 needs it

        scored, margin = _run(self._fast, batch), self.info.bfloat16
        assert margin is not None  # else load_model has raised
        again = find_doubtful(scored.score, self.threshold, margin)
        if again.any():
            full = _run(self._session, batch[again])
            scored.score[again], scored.error_map[again] = full.score, full.error_map
        return scored

    def try_out(self) -> None:
        """Run the model once on a grey input, on all of its sessions: the first run of a session takes longer.

        Its errors are those of the runtime, without a common base class.
        """
        preprocess = self.info.preprocess
        grey = np.full((1, preprocess.height, preprocess.width, preprocess.channels), 128, np.uint8)
        for session in filter(None, (self._fast, self._session)):
            _run(session, grey)

    def run(self, batch: NDArray[np.uint8]) -> Scored:
        """Return the result of `infer`; the older name.

        Parameters
        ----------
        batch
            uint8 [n, height, width, channels].

        Returns
        -------
        Scored
            Score and error map of each input.
        """
        return self.infer(batch)

    def judge(
        self,
        frames: Sequence[Frame | ImageError | Prepared],
        scored: Scored | None,
        contexts: Sequence[FrameContext] | None = None,
        *,
        late_ms: float | None = None,
    ) -> list[Inspection]:
        """Compare scores with the threshold, find the regions, and make the verdict of each frame.

        Parameters
        ----------
        frames
            The frames in their order. An ImageError instead of a frame becomes a ``fault``.
        scored
            Result of `infer` for the frames without errors, None without such frames.
        contexts
            Where each frame comes from. By default all are "frame", numbered from 0.
        late_ms
            Longest latency in milliseconds. A later verdict becomes a ``fault``. None allows any.

        Returns
        -------
        list[Inspection]
            One inspection for each frame, in order.

        Raises
        ------
        UncalibratedError
            If the model has no threshold.
        ValueError
            If the numbers of frames, contexts and scores do not match.
        """
        threshold = self.threshold
        items = [frame if isinstance(frame, Prepared) else self._describe_frame(frame) for frame in frames]
        if contexts is None:
            contexts = [FrameContext(index=index) for index in range(len(items))]
        findings = _find(items, scored, threshold)
        time_now, ended, share = now(), time.perf_counter(), 1000.0 / max(1, len(items))
        model, cut, review = self.label, threshold.score, threshold.review
        white_level, inspections = self.info.preprocess.white_level, []
        for item, context, (verdict, reason, code, score, regions, error_map) in zip(
            items, contexts, findings, strict=True
        ):
            latency = round((ended - context.captured) * share, 3)
            if late_ms is not None and verdict != "fault" and latency > late_ms:
                verdict, code = "fault", "late"
                reason = f"the verdict took {latency:.0f} ms, and late_ms is {late_ms:g}"
                score, regions, error_map = None, (), None
            placement = item.placement
            pose = None if placement is None else placement.pose
            x, y, angle = _NO_POSE if pose is None else pose.rounded
            made = Verdict(
                source=context.source,
                index=context.index,
                time=time_now,
                verdict=verdict,
                score=score,
                threshold=cut,
                regions=regions,
                latency_ms=latency,
                model=model,
                reason=reason,
                part=context.part,
                review_threshold=review,
                pose_x=x,
                pose_y=y,
                pose_angle=angle,
                code=code,
            )
            inspections.append(
                Inspection(made, item.frame, error_map, threshold.map, white_level, placement, window=item.window)
            )
        return inspections

    def prepare_frame(self, frame: Frame | ImageError, *, keep: bool = True) -> Prepared:
        """Prepare a frame for `infer_frames` and `judge`.

        Parameters
        ----------
        frame
            The frame, or the reason why it could not be read.
        keep
            Whether the inspection keeps the frame.

        Returns
        -------
        Prepared
            The prepared frame. An ImageError is stored in it, not raised.
        """
        if isinstance(frame, ImageError):
            return self._describe_frame(frame)
        kept = frame if keep else None
        try:
            placement = place(frame, self.info.preprocess)
            image = prepare_at(frame, self.info.preprocess, placement)
            return Prepared(frame.shape[1], frame.shape[0], image, kept, placement=placement)
        except ImageError as error:
            return Prepared(
                0, 0, frame=kept, error=error.with_traceback(None)
            )  # a traceback would keep its frames in memory

    def _describe_frame(self, frame: Frame | ImageError) -> Prepared:
        """Return a frame without a model input, in the form that `judge` takes."""
        if isinstance(frame, ImageError):
            return Prepared(0, 0, error=frame)
        height, width = frame.shape[:2]
        try:
            return Prepared(width, height, frame=frame, placement=place(frame, self.info.preprocess))
        except ImageError as error:
            return Prepared(width, height, frame=frame, error=error.with_traceback(None))

    def infer_frames(self, items: Sequence[Prepared]) -> Scored | None:
        """Run the model on the prepared frames that have an input: once, or with `keep_aspect` once for each.

        Parameters
        ----------
        items
            The prepared frames.

        Returns
        -------
        Scored or None
            Score and error map of each input. None if no frame has an input.
        """
        images = [item.image for item in items if item.image is not None]
        if not images:
            return None
        if len(images) == 1:  # a view: on a line, code that has not run for a while is ten times slower
            return self.infer(images[0][None])
        if self.info.preprocess.keep_aspect:
            return Scored.join([self.infer(image[None]) for image in images])
        return self.infer(np.stack(images))

    def examine_batch(
        self, frames: Sequence[Frame | ImageError], contexts: Sequence[FrameContext] | None = None
    ) -> list[Inspection]:
        """Prepare, infer and judge frames in one run.

        Parameters
        ----------
        frames
            The frames in their order. An ImageError instead of a frame becomes a ``fault``.
        contexts
            Where each frame comes from. By default all are "frame", numbered from 0.

        Returns
        -------
        list[Inspection]
            One inspection for each frame, in order.

        Raises
        ------
        UncalibratedError
            If the model has no threshold.
        """
        if contexts is None:
            contexts = [FrameContext(index=index) for index in range(len(frames))]
        items = [self.prepare_frame(frame) for frame in frames]
        return self.judge(items, self.infer_frames(items), contexts)

    @property
    def reconstructs(self) -> bool:
        """Whether the file has an autoencoder of images. An autoencoder of features and a memory do not count."""
        return self.info.network is not None and not self.info.network.backbone

    def reconstruct(self, batch: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the autoencoder's reconstruction of prepared inputs.

        Parameters
        ----------
        batch
            uint8 [n, height, width, channels].

        Returns
        -------
        NDArray[np.uint8]
            uint8 [n, height, width, channels].

        Raises
        ------
        ModelFileError
            If the file has no autoencoder of images.
        """
        if not self.reconstructs:
            raise ModelFileError(f"{str(self.path)!r} has no autoencoder of images, so it reconstructs nothing")
        (reconstruction,) = self._session.run(["reconstruction"], {"image": batch})
        pixels = np.rint(np.moveaxis(reconstruction, 1, -1) * 255.0)
        return np.asarray(pixels.clip(0, 255), np.uint8)

    def encode(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the latent vectors of prepared inputs.

        Parameters
        ----------
        batch
            uint8 [n, height, width, channels].

        Returns
        -------
        NDArray[np.float32]
            float32 [n, latent].
        """
        (latent,) = self._session.run(["latent"], {"image": batch})
        return np.asarray(latent, np.float32)

    def inspect(self, frame: Frame | ImageError | Path | str, *, source: str | None = None, index: int = 0) -> Verdict:
        """Judge one frame or image file.

        Parameters
        ----------
        frame
            [height, width] or [height, width, 3], BGR, uint8 or uint16; or an image file.
        source
            Name in the verdict. By default the path of the file, or "frame".
        index
            Position in the verdict.

        Returns
        -------
        Verdict
            The verdict, a ``fault`` if the frame cannot be judged.

        Raises
        ------
        UncalibratedError
            If the model has no threshold.
        """
        return self.examine(frame, source=source, index=index).verdict

    def examine(
        self, frame: Frame | ImageError | Path | str, *, source: str | None = None, index: int = 0
    ) -> Inspection:
        """Judge one frame or image file as `inspect` does, and keep the frame and its error map.

        Parameters
        ----------
        frame
            [height, width] or [height, width, 3], BGR, uint8 or uint16; or an image file.
        source
            Name in the verdict. By default the path of the file, or "frame".
        index
            Position in the verdict.

        Returns
        -------
        Inspection
            The verdict, a ``fault`` if the frame cannot be judged, with frame and error map.

        Raises
        ------
        UncalibratedError
            If the model has no threshold.
        """
        is_file = isinstance(frame, Path | str)
        context = FrameContext(source or (str(frame) if is_file else "frame"), index)
        return self.examine_batch([self.read(frame) if isinstance(frame, Path | str) else frame], [context])[0]

    def read(self, path: Path | str) -> Frame | ImageError:
        """Read an image file as `read_image` does.

        Parameters
        ----------
        path
            The file.

        Returns
        -------
        Frame or ImageError
            The image, or the reason why it cannot be judged. The reason is not raised.
        """
        return read_or_error(path, partial(read_image, accepts=self.accepts))

    def inspect_many(
        self, paths: Iterable[Path | str] | Path | str, *, workers: int | None = None
    ) -> Iterator[Verdict]:
        """Judge image files in order, on all cores. An unreadable file becomes a ``fault``.

        Parameters
        ----------
        paths
            Image files; or one file; or one folder, whose images are judged with those of its subfolders.
        workers
            Number of threads, from 1; None for the number of cores.

        Returns
        -------
        Iterator[Verdict]
            The verdicts in the order of the files.

        Raises
        ------
        DatasetError
            If the folder cannot be read or has no image.
        UncalibratedError
            If the model has no threshold.
        ChoiceError
            If workers is below 1.
        """
        from onspect.runtime.inspection.batch import judge_files

        return judge_files(self, _list_paths(paths), workers=workers)

    def examine_many(
        self, paths: Iterable[Path | str] | Path | str, *, workers: int | None = None
    ) -> Iterator[Inspection]:
        """Judge image files as `inspect_many` does, and keep each frame and error map.

        Parameters
        ----------
        paths
            Image files; or one file; or one folder, whose images are judged with those of its subfolders.
        workers
            Number of threads, from 1; None for the number of cores.

        Returns
        -------
        Iterator[Inspection]
            The inspections in the order of the files.

        Raises
        ------
        DatasetError
            If the folder cannot be read or has no image.
        UncalibratedError
            If the model has no threshold.
        ChoiceError
            If workers is below 1.
        """
        from onspect.runtime.inspection.batch import examine_files

        return examine_files(self, _list_paths(paths), workers=workers)


def _run(session: Any, batch: NDArray[np.uint8]) -> Scored:
    score, error_map = session.run(["score", "error_map"], {"image": batch})
    return Scored(score, error_map)


def _list_paths(paths: Iterable[Path | str] | Path | str) -> Iterable[Path | str]:
    if not isinstance(paths, Path | str):
        return paths
    from onspect.runtime.images.files import list_folder

    return list_folder(paths) if os.path.isdir(paths) else [paths]  # noqa: PTH112 - Path.is_dir raises for some names


_NO_POSE: tuple[float | None, float | None, float | None] = (None, None, None)

_Finding = tuple[Judgement, str | None, str | None, float | None, tuple[Region, ...], NDArray[np.float32] | None]
"""Finding of one frame: verdict, reason and code of a fault, score, regions, error map."""


def _find(items: Sequence[Prepared], scored: Scored | None, threshold: Threshold) -> Iterator[_Finding]:
    """Yield the finding of each frame from the model's output."""
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
    """Return the reason why the output for one image is invalid, or None.

    lowest and highest are the extreme values of its error map.
    """
    if not math.isfinite(score):
        return f"the model's score is {score}"
    if not (math.isfinite(highest) and lowest >= 0.0):
        return "the model's error map has values that are not finite or below 0"
    return None
