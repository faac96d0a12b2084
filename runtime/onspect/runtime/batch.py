"""Many image files at a time: workers that each go from file to verdict, results in order, memory bounded."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from onspect.runtime.cores import available_cores
from onspect.runtime.decode import Frame, read_image
from onspect.runtime.errors import ChoiceError, ImageError

if TYPE_CHECKING:
    from onspect.runtime.inspector import Inspection, Inspector

BATCH = 4
"""Images a run: more gains nothing on a CPU and costs memory."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def examine_files(
    inspector: Inspector, paths: Iterable[Path | str], *, workers: int | None = None, batch: int = BATCH
) -> Iterator[Inspection]:
    """Judge image files in order, `batch` in a run; one that cannot be read becomes a ``fault`` and the others go on.

    At most two batches a worker are under way, however many paths there are. Raises UncalibratedError where the model
    has no threshold, ChoiceError where workers is below 1.
    """
    _ = inspector.threshold  # an uncalibrated model is refused here, not in a thread

    def examine(numbered: tuple[int, tuple[Path | str, ...]]) -> list[Inspection]:
        number, some = numbered
        started = time.perf_counter()
        frames = [_read_or_error(path) for path in some]
        sources = [str(path) for path in some]
        return inspector.examine_batch(frames, sources=sources, first_index=number * batch, started=started)

    batches = in_order(examine, enumerate(batched(paths, batch)), workers=workers)
    return itertools.chain.from_iterable(batches)


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


def batched(items: Iterable[Item], size: int) -> Iterator[tuple[Item, ...]]:
    """Yield the items in tuples of `size`, the last one shorter."""
    source = iter(items)
    while batch := tuple(itertools.islice(source, size)):
        yield batch


def _read_or_error(path: Path | str) -> Frame | ImageError:
    try:
        return read_image(path)
    except ImageError as error:
        return error
