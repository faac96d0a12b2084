"""What a comparison found: areas for each anomalous class, variant, score and seed, and what each variant costs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onspect.calibration.metrics.image import IMAGE_METRICS
from onspect.compare.datasets import Dataset
from onspect.compare.experiments import Experiment, Settings, Trained, read_scores, read_trained
from onspect.runtime.errors import DatasetError
from onspect.runtime.inspection.inspector import Inspector

_TIMED_RUNS = 200

ALL = "all together"
"""The row of a table in which the images of all anomalous classes stand against the normal ones."""


@dataclass(frozen=True)
class Area:
    """The image metrics for one anomalous class against the normal images, by name; anomalous is positive."""

    values: dict[str, float]

    @property
    def auroc(self) -> float:
        """The area under the ROC curve, 0 to 1."""
        return self.values["auroc"]

    @property
    def aupr(self) -> float:
        """The average precision, 0 to 1."""
        return self.values["aupr"]


@dataclass(frozen=True)
class Result:
    """What one score of a cell reached: areas by anomalous class, in the collection's order, then `ALL`."""

    cell: Experiment
    score: str
    areas: dict[str, Area]

    @property
    def mean(self) -> Area:
        """The mean over the anomalous classes, each counting alike."""
        single = [area for name, area in self.areas.items() if name != ALL]
        names = [metric.name for metric in IMAGE_METRICS]
        return Area({name: statistics.fmean(area.values[name] for area in single) for name in names})


@dataclass(frozen=True)
class Cost:
    """What a variant costs: the weights in its file, the file's bytes, and milliseconds for one image on one thread."""

    parameters: int
    file_bytes: int
    latency_ms: float


@dataclass(frozen=True)
class Comparison:
    """All that was found. costs: by variant and score. trained: in the order of the cells."""

    settings: Settings
    collection: Dataset = field(repr=False)
    cells: tuple[Experiment, ...]
    scores: tuple[str, ...]
    results: tuple[Result, ...]
    trained: tuple[Trained, ...]
    costs: dict[tuple[str, str], Cost]

    @property
    def variants(self) -> tuple[str, ...]:
        """The variants, in the order in which they were asked for."""
        return tuple(dict.fromkeys(cell.variant for cell in self.cells))

    @property
    def normals(self) -> tuple[tuple[str, ...], ...]:
        """The sets of normal classes, each of which is a comparison of its own."""
        return tuple(dict.fromkeys(cell.normal for cell in self.cells))

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds, ascending."""
        return tuple(sorted({cell.seed for cell in self.cells}))

    def having(self, score: str) -> tuple[str, ...]:
        """Return the variants that have a score."""
        return tuple(dict.fromkeys(cell.variant for cell in self.cells if cell.choose([score])))

    def select(self, normal: tuple[str, ...], variant: str, score: str) -> list[Result]:
        """Return the results of all seeds."""
        return [
            result
            for result in self.results
            if (result.cell.normal, result.cell.variant, result.score) == (normal, variant, score)
        ]


def gather(
    cells: Sequence[Experiment], scores: Sequence[str], settings: Settings, collection: Dataset, folder: Path
) -> Comparison:
    """Measure what complete cells have left in the comparison's folder.

    Raises DatasetError where a file is damaged or the test images of a class are missing.
    """
    results = [_measure(cell, score, collection, folder) for cell in cells for score in cell.choose(scores)]
    return Comparison(
        settings=settings,
        collection=collection,
        cells=tuple(cells),
        scores=tuple(scores),
        results=tuple(results),
        trained=tuple(read_trained(cell, folder) for cell in cells),
        costs=_measure_costs(cells, scores, collection, folder),
    )


def _measure(cell: Experiment, score: str, collection: Dataset, folder: Path) -> Result:
    scores = read_scores(cell, score, collection, folder)
    if not np.isfinite(scores).all():
        raise DatasetError(
            f"{cell}, score {score}: {int((~np.isfinite(scores)).sum())} test images have no finite score"
        )
    parted = part(scores, cell.normal, collection)
    normal = parted.pop(None)
    return Result(cell, score, {name: _area(normal, values) for name, values in parted.items() if name is not None})


def part(
    scores: NDArray[np.float32], normal: tuple[str, ...], collection: Dataset
) -> dict[str | None, NDArray[np.float32]]:
    """Return the scores of the normal test images (None), of each anomalous class, and of `ALL` of those."""
    labels = collection.test.labels
    anomalous = [name for name in collection.classes if name not in normal]
    parts: dict[str | None, NDArray[np.float32]] = {None: scores[np.isin(labels, collection.indices(normal))]}
    for name in anomalous:
        parts[name] = scores[labels == collection.classes.index(name)]
    parts = {name: values for name, values in parts.items() if name is None or len(values)}
    if not len(parts[None]) or len(parts) == 1:
        what = "normal" if not len(parts[None]) else "anomalous"
        raise DatasetError(f"{collection.name} has no {what} images to test on (normal: {', '.join(normal)})")
    parts[ALL] = np.concatenate([values for name, values in parts.items() if name is not None])
    return parts


def _area(normal: NDArray[np.float32], anomalous: NDArray[np.float32]) -> Area:
    return Area({metric.name: metric.measure(normal, anomalous) for metric in IMAGE_METRICS})


def _measure_costs(
    cells: Sequence[Experiment], scores: Sequence[str], collection: Dataset, folder: Path
) -> dict[tuple[str, str], Cost]:
    """Time the first cell of each variant in turns, so that whatever else the machine does burdens all alike."""
    first = {cell.variant: cell for cell in reversed(cells)}
    paths = {
        (variant, score): folder / cell.folder / f"{score}.onnx"
        for variant, cell in first.items()
        for score in cell.choose(scores)
    }
    inspectors = {key: Inspector(path, provider="cpu") for key, path in paths.items()}
    image = collection.test.images[:1]
    times: dict[tuple[str, str], list[float]] = {key: [] for key in paths}
    for _ in range(_TIMED_RUNS):
        for key, inspector in inspectors.items():
            started = time.perf_counter()
            inspector.run(image)
            times[key].append(time.perf_counter() - started)
    return {
        key: Cost(
            parameters=_count_parameters(inspectors[key]),
            file_bytes=path.stat().st_size,
            latency_ms=statistics.median(times[key]) * 1000.0,
        )
        for key, path in paths.items()
    }


def _count_parameters(inspector: Inspector) -> int:
    network = inspector.info.network
    return 0 if network is None else network.parameters
