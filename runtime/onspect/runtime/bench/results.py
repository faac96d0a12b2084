"""What a bench run found, as data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from onspect.runtime.model.providers import runs_on_processor

STAGES = ("decode", "resize", "infer", "post")
"""The steps from a file to a verdict: reading and decoding; to the model's size; the graph; regions and the verdict."""


@dataclass(frozen=True)
class Spread:
    """A figure that was taken several times: its median, and between what 10% and 90% of them lie."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return the spread of values, of which there is at least one."""
        low, median, high = np.percentile(values, [10, 50, 90])
        return cls(float(median), float(low), float(high))


@dataclass(frozen=True)
class Stages:
    """One thread, one image at a time: the median milliseconds of each of `STAGES`.

    wall: by the clock. cpu: of the processor's time, which other processes on a busy machine add nothing to.
    """

    wall: dict[str, float]
    cpu: dict[str, float]

    def by_provider(self, provider: str) -> dict[str, float]:
        """Return what the stages cost: the processor's time, or the clock's where another device does the work."""
        return self.cpu if runs_on_processor(provider) else self.wall


@dataclass(frozen=True)
class Throughput:
    """From files to verdicts on so many workers, images a second."""

    workers: int
    batch: int
    images: Spread


@dataclass(frozen=True)
class Latency:
    """From frames in memory to their verdicts, one batch after the other, milliseconds a batch."""

    provider: str
    threads: int
    batch: int
    p50: float
    p95: float
    p99: float
    runs: int


@dataclass(frozen=True)
class Paced:
    """At a camera's rate, one thread: milliseconds from frame to verdict, and how many processors that keeps busy."""

    rate: float
    p50: float
    p99: float
    cpu: float


@dataclass(frozen=True)
class Start:
    """A process of its own, from its start.

    verdict: milliseconds to the first verdict. imports: to numpy, OpenCV and onnxruntime alone. first_memory,
    peak_memory: the most that it had in MiB after its first verdict and after all images, None where unknown.
    """

    verdict: float
    imports: float
    first_memory: float | None
    peak_memory: float | None


@dataclass(frozen=True)
class ModelBench:
    """What one model costs. label: name and checksum. size: width, height and channels that it works at."""

    label: str
    path: str
    precision: str
    provider: str
    size: tuple[int, int, int]
    stages: Stages
    cores: int
    throughput: tuple[Throughput, ...]
    latency: tuple[Latency, ...]
    paced: Paced
    start: Start

    @property
    def bound(self) -> float:
        """Images a second that the stages allow on all cores."""
        return 1000.0 * self.cores / max(1e-6, sum(self.stages.by_provider(self.provider).values()))

    @property
    def best(self) -> Throughput:
        """The arrangement with the most images a second."""
        return max(self.throughput, key=lambda cell: cell.images.median)


@dataclass(frozen=True)
class Machine:
    """Where it was measured. system, processor: in words. versions: of Python and the packages."""

    system: str
    processor: str
    cores: int
    versions: dict[str, str]


@dataclass(frozen=True)
class Load:
    """How busy the machine was with other things meanwhile.

    others: processors that other processes used on average, None where the system does not say. share: of a processor
    that one busy thread of ours got, 0 to 1.
    """

    others: float | None
    share: float

    @property
    def busy(self) -> bool:
        """Whether that is enough to make the figures worse than they are."""
        return self.share < 0.95 or (self.others is not None and self.others > 0.1)


@dataclass(frozen=True)
class Ratio:
    """The second model's figure over the first's, from turns taken in the same run."""

    name: str
    ratio: Spread


@dataclass(frozen=True)
class Bench:
    """A whole run. images: what was judged, in words. ratios: empty without a second model. time: ISO 8601, UTC."""

    time: str
    machine: Machine
    load: Load
    images: str
    models: tuple[ModelBench, ...]
    ratios: tuple[Ratio, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the run as a JSON object."""
        content = asdict(self)
        content["load"]["busy"] = self.load.busy
        for found, model in zip(content["models"], self.models, strict=True):
            found["bound"] = model.bound
        return content
