"""`Inspector`: a model file, loaded, that turns frames into verdicts."""

from __future__ import annotations

import copy
import dataclasses
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from onspect.runtime.decode import Frame
from onspect.runtime.errors import ChoiceError, ImageError, ModelFileError, UncalibratedError
from onspect.runtime.model_file import ModelFile, ModelInfo, Threshold, read_model_file
from onspect.runtime.preprocess import prepare
from onspect.runtime.verdict import Verdict, decide, find_regions, now

_LOG = logging.getLogger("onspect")

PROVIDERS = {
    "cpu": ["CPUExecutionProvider"],
    "cuda": ["CUDAExecutionProvider", "CPUExecutionProvider"],
    "tensorrt": ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"],
}
"""What `Inspector` may run on, each with what it falls back to."""


@dataclass(frozen=True)
class Inspection:
    """A verdict with what it was seen from.

    frame: the source image as it came, None where it could not be read. error_map: float32 [h, w] at the model's
    working size, None for a fault. map_threshold, white_level: what a picture of it needs, as in `draw_overlay`.
    """

    verdict: Verdict
    frame: Frame | None = field(repr=False, compare=False)
    error_map: NDArray[np.float32] | None = field(repr=False, compare=False)
    map_threshold: float = math.inf
    white_level: int = 65535


@dataclass(frozen=True)
class Scored:
    """The graph's answer to a batch: score float32 [n] and error_map float32 [n, h, w], both >= 0, higher is worse."""

    score: NDArray[np.float32]
    error_map: NDArray[np.float32]


class Inspector:
    """A loaded model file that judges frames and image files; safe to share between threads.

    provider is ``auto`` (the best that this onnxruntime has), ``cpu``, ``cuda`` or ``tensorrt``; where the one asked
    for cannot be had, a warning is logged and the next best runs. threads is how many one run may use (1: many runs
    at a time, in threads, make the best use of the cores).

    Raises ModelFileError where the file cannot be used, ChoiceError for an unknown provider.
    """

    def __init__(self, path: Path | str | ModelFile, *, provider: str = "auto", threads: int = 1) -> None:
        model = path if isinstance(path, ModelFile) else read_model_file(path)
        self.path = model.path
        self.info: ModelInfo = model.info
        self.sha256 = model.sha256
        self.label = f"{model.info.name}@{model.sha256[:12]}"
        """The model's name and the first digits of its checksum, as verdicts carry them."""
        self._session = _open_session(model.path, model.data, provider, threads)
        _check_inputs(model.path, self._session, model.info)

    @property
    def provider(self) -> str:
        """What the model runs on: ``cpu``, ``cuda`` or ``tensorrt``."""
        return _first_provider(self._session)

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

    def run(self, batch: NDArray[np.uint8]) -> Scored:
        """Score prepared inputs, uint8 [n, height, width, channels]."""
        score, error_map = self._session.run(["score", "error_map"], {"image": batch})
        return Scored(score, error_map)

    def reconstruct(self, batch: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return what the autoencoder makes of prepared inputs, uint8 [n, height, width, channels] like them."""
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
        return (inspection.verdict for inspection in self.examine_many(paths, workers=workers))

    def examine_many(self, paths: Iterable[Path | str], *, workers: int | None = None) -> Iterator[Inspection]:
        """Judge image files as `inspect_many` does, and keep each frame and error map."""
        from onspect.runtime.batch import examine_files

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
        threshold = self.threshold
        started = time.perf_counter() if started is None else started
        inputs: list[NDArray[np.uint8] | ImageError] = [self._prepare_or_error(frame) for frame in frames]
        good = [item for item in inputs if isinstance(item, np.ndarray)]
        batch = np.stack(good) if good else None
        checks = _start_checks(gate, frames, inputs)  # as late as can be: from here on the interpreter is free
        scored = self.run(batch) if batch is not None else None
        judged = []
        position = 0
        for offset, (frame, item) in enumerate(zip(frames, inputs, strict=True)):
            facts: dict[str, Any] = {"source": sources[offset], "index": first_index + offset}
            if isinstance(item, ImageError) or scored is None:
                judged.append((facts | _describe_fault(str(item)), frame, None))
                continue
            fault = _read_check(checks.get(offset))
            facts |= self._judge(frame, scored, position) if fault is None else _describe_fault(fault)
            judged.append((facts, frame, scored.error_map[position]))
            position += 1
        latency = (time.perf_counter() - started) * 1000.0 / max(1, len(frames))
        common = {
            "time": now(),
            "threshold": threshold.score,
            "latency_ms": round(latency, 3),
            "model": self.label,
            "review_threshold": threshold.review,
        }
        return [
            Inspection(
                verdict=Verdict(**{"regions": ()} | facts | common),
                frame=None if isinstance(frame, ImageError) else frame,
                error_map=None if facts["verdict"] == "fault" else error_map,
                map_threshold=threshold.map,
                white_level=self.info.preprocess.white_level,
            )
            for facts, frame, error_map in judged
        ]

    def _prepare_or_error(self, frame: Frame | ImageError) -> NDArray[np.uint8] | ImageError:
        if isinstance(frame, ImageError):
            return frame
        try:
            return self.prepare(frame)
        except ImageError as error:
            return error

    def _judge(self, frame: Any, scored: Scored, position: int) -> dict[str, Any]:
        score, error_map = float(scored.score[position]), scored.error_map[position]
        verdict = decide(score, self.threshold)
        if verdict == "fault" or not math.isfinite(float(error_map.max())):
            return _describe_fault(f"the model's score is {score}, its error map not finite")
        height, width = frame.shape[:2]
        regions = find_regions(error_map, self.threshold, width, height, verdict)
        return {"verdict": verdict, "score": score, "regions": regions}


def _start_checks(
    gate: Callable[[Frame, NDArray[np.uint8]], Future[None]] | None,
    frames: Sequence[Frame | ImageError],
    inputs: Sequence[NDArray[np.uint8] | ImageError],
) -> dict[int, Future[None]]:
    """Hand what can be judged to the gate; return its answers to come, by place."""
    if gate is None:
        return {}
    return {
        place: gate(frame, item)
        for place, (frame, item) in enumerate(zip(frames, inputs, strict=True))
        if not isinstance(frame, ImageError) and not isinstance(item, ImageError)
    }


def _read_check(check: Future[None] | None) -> str | None:
    """Return what the gate has against a frame; raises what is no ImageError."""
    if check is None:
        return None
    try:
        check.result()
    except ImageError as error:
        return str(error)
    return None


def _describe_fault(reason: str) -> dict[str, Any]:
    return {"verdict": "fault", "score": None, "reason": reason}


def _open_session(path: Path, data: bytes, provider: str, threads: int) -> Any:
    if provider not in ("auto", *PROVIDERS):
        raise ChoiceError(f"provider is {provider!r}; choose one of auto, {', '.join(PROVIDERS)}")
    here = onnxruntime.get_available_providers()
    wanted = provider
    if provider == "auto":
        wanted = "cuda" if "CUDAExecutionProvider" in here else "cpu"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    usable = [name for name in PROVIDERS[wanted] if name in here]
    try:
        session = onnxruntime.InferenceSession(data, options, providers=usable)
    except Exception as error:  # onnxruntime's errors share no base class
        raise ModelFileError(f"onnxruntime cannot load {str(path)!r}: {error}; export it again") from error
    running = _first_provider(session)
    if running != wanted:
        _LOG.warning(
            "the provider %r cannot be had here (this onnxruntime offers %s): running on %r",
            wanted,
            ", ".join(here),
            running,
        )
    return session


def _first_provider(session: Any) -> str:
    first = session.get_providers()[0]
    return next(name for name, chain in PROVIDERS.items() if chain[0] == first)


def _check_inputs(path: Path, session: Any, info: ModelInfo) -> None:
    recipe = info.preprocess
    found = [(item.name, item.type, list(item.shape[1:])) for item in session.get_inputs()]
    expected = [("image", "tensor(uint8)", [recipe.height, recipe.width, recipe.channels])]
    if found != expected:
        raise ModelFileError(f"{str(path)!r} takes {found}, and its metadata say {expected}; export it again")
