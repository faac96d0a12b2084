"""Judge one frame: the check of the frame and the model run in parallel, and every failure becomes a fault."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from onspect.runtime.errors import ImageError
from onspect.runtime.images.decode import Frame
from onspect.runtime.inspection.inspector import Inspection, Inspector, Prepared
from onspect.runtime.inspection.verdict import FrameContext
from onspect.runtime.line.frame_check import FrameCheck, Health, Limits, find_picture_fault
from onspect.runtime.line.models import Model
from onspect.runtime.sources.base import Capture, Source

if TYPE_CHECKING:
    from onspect.runtime.presence.gate import PartView

_LOG = logging.getLogger("onspect")


class Examiner:
    """Judge the frames of a line's sources, one at a time; each frame gives exactly one inspection."""

    def __init__(self, sources: Sequence[Source], health: Health) -> None:
        self._late_ms = health.late_ms
        files = dataclasses.replace(health, identical=0)  # two files may be equal, and may differ in size
        self.checks = [
            FrameCheck(files) if source.can_wait else FrameCheck(health, keeps_size=True) for source in sources
        ]
        """The check of each source's frames."""
        self._thread = ThreadPoolExecutor(1, "onspect-frame-check")

    def close(self) -> None:
        """Stop the thread of the checks."""
        self._thread.shutdown()

    def examine(
        self,
        model: Model | None,
        fallback: Model,
        source_index: int,
        capture: Capture,
        index: int,
        view: PartView | None,
    ) -> Inspection:
        """Judge one frame; every error becomes a fault with its reason.

        Parameters
        ----------
        model
            The model; None if the frame's recipe does not exist, which is a fault.
        fallback
            The model whose threshold a fault has if `model` is None.
        source_index
            Index of the source, 0 or more.
        capture
            The frame.
        index
            Index of the part that the frame belongs to.
        view
            The presence gate's decision about the frame; None without presence.

        Returns
        -------
        Inspection
            The inspection.
        """
        captured = time.perf_counter() if capture.captured is None else capture.captured
        context = FrameContext(capture.source, index, capture.part, captured)
        frame, inspector = capture.frame, (model or fallback).inspector
        if model is None:
            frame = ImageError(f"there is no recipe {capture.recipe!r} in the configuration", code="recipe")
        elif self._late_ms is not None and (time.perf_counter() - captured) * 1000.0 > self._late_ms:
            frame = ImageError(f"the frame waited for longer than {self._late_ms:g} ms (late_ms)", code="late")
        try:
            prepared = _prepare(inspector, frame, view)
            # start the check as late as possible: inference releases the interpreter lock
            check = self._start_check((model or fallback).limits, source_index, prepared, alone=view is None)
            scored = inspector.infer_frames([prepared])
            if check is not None and (fault := check.result()) is not None:
                prepared = dataclasses.replace(prepared, error=fault)
            (inspection,) = inspector.judge([prepared], scored, [context], late_ms=self._late_ms)
        except Exception as error:  # noqa: BLE001 - onnxruntime's errors share no base class, and the line must continue
            _LOG.exception("the model failed")
            (inspection,) = inspector.judge([ImageError(f"the model failed: {error}", code="model")], None, [context])
        return inspection

    def _start_check(
        self, limits: Limits | None, source_index: int, prepared: Prepared, *, alone: bool
    ) -> Future[ImageError | None] | None:
        """Check a frame in a second thread, while the model runs; None if there is nothing to check.

        alone: whether the frame is checked for the first time here; False if presence has watched it.
        """
        if limits is None or prepared.image is None or prepared.frame is None:
            return None
        if not alone:
            return self._thread.submit(find_picture_fault, limits, prepared.image)
        find_fault = self.checks[source_index].find_fault
        return self._thread.submit(find_fault, prepared.frame, limits, prepared.image)


def _prepare(inspector: Inspector, frame: Frame | ImageError, view: PartView | None) -> Prepared:
    if view is None or isinstance(frame, ImageError):
        return inspector.prepare_frame(frame)
    if view.window is None:
        return Prepared(0, 0, frame=frame, error=ImageError(str(view.reason), code="position"))
    from onspect.runtime.presence.crop import prepare_window  # only a line with presence needs it

    return prepare_window(inspector, frame, view.window)
