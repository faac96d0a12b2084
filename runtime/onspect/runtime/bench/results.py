"""The results of a bench, as data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from onspect.runtime.model.providers import runs_on_processor

STAGES = ("decode", "resize", "infer", "post")
"""The steps from a file to a verdict: read and decode; resize; run the graph; find regions and decide."""


@dataclass(frozen=True)
class Spread:
    """Median and range of repeated measurements."""

    median: float
    """Median."""

    low: float
    """10% quantile."""

    high: float
    """90% quantile."""

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return the spread of values.

        Parameters
        ----------
        values
            The values, at least one.

        Returns
        -------
        Spread
            Median and range.
        """
        low, median, high = np.percentile(values, [10, 50, 90])
        return cls(float(median), float(low), float(high))


@dataclass(frozen=True)
class Stages:
    """Median milliseconds of each of `STAGES`, one image at a time on one thread."""

    wall: dict[str, float]
    """Time by the clock."""

    cpu: dict[str, float]
    """Time of the processor, which other processes on a busy machine do not increase."""

    def by_provider(self, provider: str) -> dict[str, float]:
        """Return the cost of the stages on a provider.

        Parameters
        ----------
        provider
            Our name of the provider.

        Returns
        -------
        dict[str, float]
            The time of the processor, or the time by the clock if another device does the work.
            Milliseconds by stage.
        """
        return self.cpu if runs_on_processor(provider) else self.wall


@dataclass(frozen=True)
class Throughput:
    """Throughput from files to verdicts."""

    workers: int
    """Number of threads."""

    batch: int
    """Images in one run."""

    images: Spread
    """Images a second."""


@dataclass(frozen=True)
class Latency:
    """Latency from frames in memory to their verdicts, one batch after the other."""

    provider: str
    """Our name of the provider."""

    threads: int
    """Threads of one run."""

    batch: int
    """Frames in one run."""

    p50: float
    """Median in milliseconds for each batch."""

    p95: float
    """95% quantile in milliseconds."""

    p99: float
    """99% quantile in milliseconds."""

    runs: int
    """Number of measured batches."""


@dataclass(frozen=True)
class Paced:
    """Latency and load at a camera's rate, on one thread."""

    rate: float
    """Frames a second."""

    p50: float
    """Median in milliseconds from frame to verdict."""

    p99: float
    """99% quantile in milliseconds."""

    cpu: float
    """Average number of busy processors."""


@dataclass(frozen=True)
class Start:
    """Time and memory of a new process."""

    verdict: float
    """Milliseconds from its start to the first verdict."""

    imports: float
    """Milliseconds of a process that only imports numpy, OpenCV and onnxruntime."""

    first_memory: float | None
    """Peak memory after the first verdict in MiB; None if it is not known."""

    peak_memory: float | None
    """Peak memory after all images in MiB; None if it is not known."""


@dataclass(frozen=True)
class ModelBench:
    """The measurements of one model."""

    label: str
    """Name and checksum."""

    path: str
    """Path of the file."""

    precision: str
    """``fp32``, ``fp16`` or ``int8``."""

    provider: str
    """Our name of the provider."""

    size: tuple[int, int, int]
    """Width, height and channels of the model input."""

    stages: Stages
    """Cost of each stage."""

    cores: int
    """Number of cores of the machine."""

    throughput: tuple[Throughput, ...]
    """Throughput for each number of threads and batch size."""

    latency: tuple[Latency, ...]
    """Latency for each provider, number of threads and batch size."""

    paced: Paced
    """Latency and load at a camera's rate."""

    start: Start
    """Time and memory of a new process."""

    @property
    def bound(self) -> float:
        """Images a second that the stages allow on all cores."""
        return 1000.0 * self.cores / max(1e-6, sum(self.stages.by_provider(self.provider).values()))

    @property
    def best(self) -> Throughput:
        """The setting with the most images a second."""
        return max(self.throughput, key=lambda cell: cell.images.median)


@dataclass(frozen=True)
class Machine:
    """The machine that measured."""

    system: str
    """Operating system and architecture."""

    processor: str
    """Name of the processor."""

    cores: int
    """Number of usable cores."""

    versions: dict[str, str]
    """Versions of Python and the packages."""


@dataclass(frozen=True)
class Load:
    """Load of the machine by other processes during the measurement."""

    others: float | None
    """Average number of processors that other processes used; None if the system does not report it."""

    share: float
    """Share of a processor that one busy thread got, 0 to 1."""

    @property
    def busy(self) -> bool:
        """Whether the load is high enough to distort the results."""
        return self.share < 0.95 or (self.others is not None and self.others > 0.1)


@dataclass(frozen=True)
class Ratio:
    """A result of the second model over that of the first, measured in turns."""

    name: str
    """Name of the result."""

    ratio: Spread
    """Ratio of the turns."""


@dataclass(frozen=True)
class Bench:
    """The results of a whole run."""

    time: str
    """ISO 8601, UTC."""

    machine: Machine
    """The machine."""

    load: Load
    """Its load by other processes."""

    images: str
    """The images as text."""

    models: tuple[ModelBench, ...]
    """Results of each model."""

    ratios: tuple[Ratio, ...]
    """Ratios of two models; empty for one model."""

    def to_dict(self) -> dict[str, Any]:
        """Return the results as a JSON object.

        Returns
        -------
        dict[str, Any]
            Every field under its name, with ``busy`` and ``bound``.
        """
        content = asdict(self)
        content["load"]["busy"] = self.load.busy
        for found, model in zip(content["models"], self.models, strict=True):
            found["bound"] = model.bound
        return content
