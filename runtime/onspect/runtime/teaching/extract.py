"""Features of prepared images with onnxruntime, from a base file or a model file with a memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import onnxruntime
from numpy.typing import NDArray

from onspect.runtime.cpu import available_cores
from onspect.runtime.dataset.good_images import stack_images
from onspect.runtime.errors import ModelFileError
from onspect.runtime.model.session import session_options
from onspect.runtime.progress import Progress, no_progress
from onspect.runtime.teaching.base_file import FEATURES, edit_graph
from onspect.runtime.teaching.memory import Features

Images = NDArray[np.uint8]
"""Prepared images, uint8 [n, height, width, channels]; those of different sizes as `stack_images` returns them."""

Change = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]

_TURNS = 12


def open_session(graph: bytes) -> onnxruntime.InferenceSession:
    """Open a graph on all cores, with little memory.

    Parameters
    ----------
    graph
        The bytes of the graph.

    Returns
    -------
    onnxruntime.InferenceSession
        The session.

    Raises
    ------
    ModelFileError
        If onnxruntime cannot run the graph.
    """
    options = session_options(available_cores())  # one image at a time: the device has little memory
    options.enable_cpu_mem_arena = False  # it would keep the largest intermediate values in memory
    try:
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no base class
        raise ModelFileError(f"onnxruntime cannot run the base file: {error}; make it again") from error


@dataclass(frozen=True)
class Extractor:
    """Extracts the features of prepared images."""

    session: onnxruntime.InferenceSession
    """Session of a graph with the outputs `FEATURES`."""

    @classmethod
    def open(cls, graph: bytes) -> Extractor:
        """Open the graph of a base or model file.

        Parameters
        ----------
        graph
            The bytes of the file without metadata.

        Returns
        -------
        Extractor
            The extractor.

        Raises
        ------
        ModelFileError
            If onnxruntime cannot run the graph.
        """
        return cls(open_session(edit_graph(graph, {}, outputs=FEATURES)))

    def extract(
        self, images: Images, *, progress: Progress | None = None, label: str = "extracting features"
    ) -> Features:
        """Extract the features of images one by one, each on all cores.

        Parameters
        ----------
        images
            Prepared images.
        progress
            Wraps the work, for a progress bar.
        label
            Text of the progress bar.

        Returns
        -------
        Features
            The features of all images, in order.

        Raises
        ------
        ModelFileError
            If the features of an image are not finite.
        """
        items = (progress or no_progress)(images, len(images), label)
        return Features.join([self._extract_one(image) for image in items])

    def add_copies(
        self,
        features: Features,
        images: Images,
        copies: str,
        progress: Progress | None = None,
        label: str = "extracting features",
    ) -> tuple[Features, NDArray[np.intp]]:
        """Append the features of changed copies of images.

        Parameters
        ----------
        features, images
            The images, uint8 [n, height, width, channels], and their features.
        copies
            A name in `COPIES`.
        progress, label
            As in `extract`.

        Returns
        -------
        tuple[Features, NDArray[np.intp]]
            All features, and the number of the image that each is of, int [n * (1 + changes)].
        """
        changes = COPIES[copies]
        if changes:
            changed = change_images(images, changes)
            features = Features.join([features, self.extract(changed, progress=progress, label=label)])
        return features, np.tile(np.arange(len(images)), 1 + len(changes))

    def _extract_one(self, image: NDArray[np.uint8]) -> Features:
        with np.errstate(over="ignore"):  # values beyond float16 become infinite and are refused
            stages = [stage.astype(np.float16) for stage in self.session.run(list(FEATURES), {"image": image[None]})]
        if not all(np.isfinite(stage).all() for stage in stages):
            raise ModelFileError(
                "the network gives features that are not finite numbers for these pictures; make the base file again"
            )
        return Features(*([stage[0]] for stage in stages))


def change_images(images: Images, changes: Sequence[Change]) -> Images:
    """Return changed copies of images: all with the first change, then all with the second, and so on.

    Parameters
    ----------
    images
        Prepared images, n of them.
    changes
        Functions from one image to a changed one of the same size.

    Returns
    -------
    Images
        The changed images, n * changes of them.
    """
    return stack_images([_keep_shape(change(image), image) for change in changes for image in images])


def _keep_shape(changed: NDArray[np.uint8], image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(changed).reshape(image.shape)  # OpenCV drops the axis of a single channel


def _turn(degrees: float) -> Change:
    def change(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        height, width = image.shape[:2]
        matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
        turned = cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(turned, np.uint8)

    return change


FLIPS: tuple[Change, ...] = (lambda image: image[:, ::-1], lambda image: image[::-1], lambda image: image[::-1, ::-1])
TURNS: tuple[Change, ...] = tuple(_turn(360.0 / _TURNS * step) for step in range(1, _TURNS))
COPIES: dict[str, tuple[Change, ...]] = {"none": (), "flips": FLIPS, "turns": (*TURNS, FLIPS[0])}
"""Changed copies of each good picture that can be taught too, by name."""
