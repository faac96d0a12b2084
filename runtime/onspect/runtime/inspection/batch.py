"""Judge many image files: each worker goes from file to verdict, results are in order, and memory is bounded."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from onspect.runtime.cpu import available_cores
from onspect.runtime.errors import ChoiceError
from onspect.runtime.images.decode import Frame, read_image, read_or_error
from onspect.runtime.inspection.verdict import FrameContext
from onspect.runtime.model.providers import runs_on_processor

if TYPE_CHECKING:
    from onspect.runtime.inspection.inspector import Inspection, Inspector
    from onspect.runtime.inspection.verdict import Verdict
    from onspect.runtime.model.schema import Preprocess

BATCH = 4
"""Images in a run if their size is not known. More images gain little on a CPU and cost memory."""

_PIXELS = 64 * 1024  # in a run on a processor; more gain little and cost memory (benchmarks/growth.py)
_MOST = 32
_GPU_FACTOR = 16  # a GPU needs more work than a core; chosen without a measurement
_TINY = 96 * 96  # pixels of an input up to which workers take turns
_PATIENCE = 0.01  # seconds that a worker waits for its turn
_TAKEN = 4  # smallest number of images that a worker takes at a time; with single ones it waits longer for its turn

Item = TypeVar("Item")
Result = TypeVar("Result")
Place = TypeVar("Place")


def choose_batch(preprocess: Preprocess, provider: str) -> int:
    """Choose how many images one run takes.

    Runs of tiny inputs cost little more than one image. On a GPU a run takes 16 times as many, because its workers
    read and resize while others wait for it.

    Parameters
    ----------
    preprocess
        Size of the model input.
    provider
        Our name of the provider that runs the model.

    Returns
    -------
    int
        1 for large inputs, up to 32 for tiny ones; up to 512 on a GPU.
    """
    factor = 1 if runs_on_processor(provider) else _GPU_FACTOR
    return max(1, min(_MOST * factor, _PIXELS * factor // (preprocess.width * preprocess.height)))


def judge_files(
    inspector: Inspector,
    paths: Iterable[Path | str],
    *,
    workers: int | None = None,
    batch: int | None = None,
    first_index: int = 0,
    read: Callable[[Path | str], Frame] | None = None,
) -> Iterator[Verdict]:
    """Judge image files in order. A file that cannot be read becomes a ``fault``; the others are still judged.

    A worker takes the images of one run at a time, at least four. At most two such groups for each worker are in
    progress. A frame is released once the model input is made.

    Parameters
    ----------
    inspector
        The model.
    paths
        The image files.
    workers
        Number of threads, from 1; None for the number of cores.
    batch
        Images in one run; None for `choose_batch`.
    first_index
        Index of the first verdict.
    read
        Function that reads an image as `read_image` does; None for `read_image`.

    Returns
    -------
    Iterator[Verdict]
        The verdicts in the order of the files.

    Raises
    ------
    UncalibratedError
        If the model has no threshold.
    ChoiceError
        If workers is below 1.
    """
    _ = inspector.threshold  # refuse an uncalibrated model here instead of in a thread
    preprocess = inspector.info.preprocess
    read = read or partial(read_image, accepts=inspector.accepts)
    size = batch or choose_batch(preprocess, inspector.provider)
    taken = -(-_TAKEN // size) * size
    turn = _Turns() if preprocess.width * preprocess.height <= _TINY else contextlib.nullcontext

    def judge(first: int, some: tuple[Path | str, ...]) -> list[Verdict]:
        started = time.perf_counter()
        with turn():
            items = [inspector.prepare_frame(read_or_error(path, read), keep=False) for path in some]
            contexts = [FrameContext(str(path), index, captured=started) for index, path in enumerate(some, first)]
        scored = inspector.infer_frames(items)
        with turn():
            return [inspection.verdict for inspection in inspector.judge(items, scored, contexts)]

    def work(numbered: tuple[int, tuple[Path | str, ...]]) -> list[Verdict]:
        number, some = numbered
        places = range(0, len(some), size)
        runs = [judge(first_index + number * taken + place, some[place : place + size]) for place in places]
        return list(itertools.chain.from_iterable(runs))

    return itertools.chain.from_iterable(in_order(work, enumerate(batched(paths, taken)), workers=workers))


def examine_files(
    inspector: Inspector, paths: Iterable[Path | str], *, workers: int | None = None, first_index: int = 0
) -> Iterator[Inspection]:
    """Judge image files as `judge_files` does, one in a run, and keep each frame and error map.

    Parameters
    ----------
    inspector
        The model.
    paths
        The image files.
    workers
        Number of threads, from 1; None for the number of cores.
    first_index
        Index of the first verdict.

    Returns
    -------
    Iterator[Inspection]
        The inspections in the order of the files.

    Raises
    ------
    UncalibratedError
        If the model has no threshold.
    ChoiceError
        If workers is below 1.
    """
    _ = inspector.threshold
    numbered = enumerate(paths, first_index)
    return in_order(lambda item: inspector.examine(item[1], index=item[0]), numbered, workers=workers)


def draw_files(
    inspector: Inspector,
    paths: Iterable[Path | str],
    place: Callable[[str], Place],
    draw: Callable[[Inspection, Place], None],
    *,
    workers: int | None = None,
    first_index: int = 0,
) -> Iterator[Verdict]:
    """Judge image files as `judge_files` does, one in a run, and draw each in the worker that judged it.

    Parameters
    ----------
    inspector
        The model.
    paths
        The image files.
    place
        Function from a source to a place for its picture. It is called for each source in order.
    draw
        Function that draws an inspection at its place. Its errors are raised here, in the order of the files.
    workers
        Number of threads, from 1; None for the number of cores.
    first_index
        Index of the first verdict.

    Returns
    -------
    Iterator[Verdict]
        The verdicts in the order of the files.

    Raises
    ------
    UncalibratedError
        If the model has no threshold.
    ChoiceError
        If workers is below 1.
    """
    _ = inspector.threshold

    def work(item: tuple[int, Path | str, Place]) -> Verdict:
        index, path, target = item
        inspection = inspector.examine(path, index=index)
        draw(inspection, target)
        return inspection.verdict

    items = ((index, path, place(str(path))) for index, path in enumerate(paths, first_index))
    return in_order(work, items, workers=workers)


def in_order(work: Callable[[Item], Result], items: Iterable[Item], *, workers: int | None = None) -> Iterator[Result]:
    """Apply a function to items in parallel threads and yield the results in order.

    Parameters
    ----------
    work
        The function.
    items
        The items. At most two for each worker are taken ahead.
    workers
        Number of threads, from 1; None for the number of cores.

    Returns
    -------
    Iterator[Result]
        The result for each item.

    Raises
    ------
    ChoiceError
        If workers is below 1.
    """
    if workers is not None and workers < 1:
        raise ChoiceError(f"workers is {workers}; give 1 or more")
    return _in_order(work, items, workers or available_cores())


def _in_order(work: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                pending.append(pool.submit(work, item))
                if len(pending) >= 2 * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


class _Turns:
    """Let workers take turns at their work in Python: one prepares or judges a group while others run the model.

    With a tiny network this is a third of the work, and two workers pass Python's lock back and forth with each
    file. Turns end for good once a worker has waited long. Long work, such as decoding large images or reading from
    a network, does not keep Python's lock.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._given_up = False

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """Wait a short time for a turn, and give it back."""
        mine = not self._given_up and self._lock.acquire(timeout=_PATIENCE)
        self._given_up |= not mine
        try:
            yield
        finally:
            if mine:
                self._lock.release()


def batched(items: Iterable[Item], size: int) -> Iterator[tuple[Item, ...]]:
    """Yield the items in tuples.

    Parameters
    ----------
    items
        The items.
    size
        Length of a tuple, from 1; the last one may be shorter.

    Returns
    -------
    Iterator[tuple[Item, ...]]
        The next items.
    """
    source = iter(items)
    while batch := tuple(itertools.islice(source, size)):
        yield batch
