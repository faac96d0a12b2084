"""Many image files at a time: workers that each go from file to verdict, results in order, memory bounded."""

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
"""Images a run where there is no telling how large they are: more gains little on a CPU and costs memory."""

_PIXELS = 64 * 1024  # in a run on a processor; more gain little and cost memory, as benchmarks/growth.py finds
_MOST = 32
_GPU_FACTOR = 16  # a GPU is not filled by what fills a core; chosen without having been measured
_TINY = 96 * 96  # pixels of an input up to which workers take turns
_PATIENCE = 0.01  # seconds that a worker waits for its turn
_TAKEN = 4  # images at least that a worker takes at a time: for single ones it waits longer for its turn

Item = TypeVar("Item")
Result = TypeVar("Result")
Place = TypeVar("Place")


def choose_batch(preprocess: Preprocess, provider: str) -> int:
    """Return how many images a run takes: 1 for large inputs, up to 32 for tiny ones, whose runs cost little more.

    On a GPU it is 16 times as many: its workers read and resize while others wait for the GPU.
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
    """Judge image files in order, `batch` in a run; one that cannot be read becomes a ``fault`` and the others go on.

    first_index is the first verdict's; read reads an image as `read_image` does. A worker takes the images of one run
    at a time, or four where that is more; at most two such groups a worker are under way, however many paths there are,
    and a frame is let go once the model's input is made of it. Raises UncalibratedError where the model has no
    threshold, ChoiceError where workers is below 1.
    """
    _ = inspector.threshold  # an uncalibrated model is refused here, not in a thread
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
    """Judge image files as `judge_files` does, one in a run, and keep each frame and error map."""
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

    place is called with one source after the other, in order, and what it returns is handed to draw. What draw raises
    is raised here, at its image's place.
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
    """Yield work(item) for each item, in order, from as many threads as there are cores (or `workers`).

    At most two items a worker are taken ahead. Raises ChoiceError where workers is below 1.
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
    """Lets workers take turns at what they do in Python: one prepares or judges a group while others run the model.

    With a tiny network that is a third of the work, and two workers at it hand Python's own lock to and fro with each
    file that they open. Where one waits long, turns are given up: what takes long, as decoding large images or reading
    from far away does, does not hold Python's lock.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._given_up = False

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """Wait for a turn, though not for long, and give it back."""
        mine = not self._given_up and self._lock.acquire(timeout=_PATIENCE)
        self._given_up |= not mine
        try:
            yield
        finally:
            if mine:
                self._lock.release()


def batched(items: Iterable[Item], size: int) -> Iterator[tuple[Item, ...]]:
    """Yield the items in tuples of `size`, the last one shorter."""
    source = iter(items)
    while batch := tuple(itertools.islice(source, size)):
        yield batch
