"""Lines on scripted cameras."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest

from onspect.runtime.inspection.inspector import Inspection, Inspector
from onspect.runtime.inspection.verdict import Verdict
from onspect.runtime.line import Health, Line, Models
from onspect.runtime.sinks.base import Sink
from onspect.runtime.status import LineStatus


class Keeper(Sink):
    """A sink that keeps its inspections."""

    def __init__(self) -> None:
        self.verdicts: list[Verdict] = []
        self.reports: list[LineStatus] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def write(self, inspection: Inspection) -> None:
        self.verdicts.append(inspection.verdict)

    def report(self, status: LineStatus) -> None:
        self.reports.append(status)

    @property
    def seen(self) -> list[str]:
        return [verdict.verdict for verdict in self.verdicts]

    @property
    def reasons(self) -> list[str]:
        return [verdict.reason for verdict in self.verdicts if verdict.reason]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """Fail where a test leaves a thread behind."""
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(2.0)
    left = [thread.name for thread in set(threading.enumerate()) - before]
    assert not left


@pytest.fixture
def keeper() -> Keeper:
    """Return a sink that keeps its inspections."""
    return Keeper()


@pytest.fixture
def models(calibrated: Path) -> Models:
    """Return the tiny model, with all checks of frames."""
    return Models({None: calibrated}, None, Inspector, Health())


@pytest.fixture
def unchecked(calibrated: Path) -> Models:
    """Return the tiny model, without checks of frames."""
    return Models({None: calibrated}, None, Inspector)


@pytest.fixture
def noisy() -> Callable[[int], np.ndarray]:
    """Return a function that draws a good part, another one for each number."""
    return lambda number: np.random.default_rng(number).integers(120, 136, (16, 16)).astype(np.uint8)


@pytest.fixture
def running() -> Callable[..., Any]:
    """Return a context that runs a line in a thread, and stops it at the end."""

    @contextmanager
    def run(line: Line) -> Iterator[Line]:
        failures: list[Exception] = []

        def work() -> None:
            try:
                line.run()
            except Exception as error:  # noqa: BLE001 - raised again in the test's own thread
                failures.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield line
        finally:
            line.stop()
            thread.join(10.0)
            assert not thread.is_alive()
        if failures:
            raise failures[0]

    return run
