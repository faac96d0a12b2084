"""Results of a comparison: areas for each anomalous class, variant, score and seed, and the cost of each variant."""

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
"""The row of a table that compares all anomalous classes together with the normal ones."""


@dataclass(frozen=True)
class Area:
    """Image metrics for one anomalous class against the normal images; anomalous is positive."""

    values: dict[str, float]
    """Value of each metric by name."""

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
    """Areas of one score of an experiment."""

    experiment: Experiment
    """The experiment."""
    score: str
    """Name of the score."""
    areas: dict[str, Area]
    """Area by anomalous class, in the order of the dataset, then `ALL`."""

    @property
    def mean(self) -> Area:
        """The mean over the anomalous classes, each counting alike."""
        single = [area for name, area in self.areas.items() if name != ALL]
        names = [metric.name for metric in IMAGE_METRICS]
        return Area({name: statistics.fmean(area.values[name] for area in single) for name in names})


@dataclass(frozen=True)
class Cost:
    """Cost of a variant."""

    parameters: int
    """Number of weights in its file."""
    file_bytes: int
    """Size of the file in bytes."""
    latency_ms: float
    """Time for one image on one thread, in milliseconds."""


@dataclass(frozen=True)
class Comparison:
    """All results of a comparison."""

    settings: Settings
    """Settings that all experiments share."""
    dataset: Dataset = field(repr=False)
    """The images."""
    experiments: tuple[Experiment, ...]
    """The experiments."""
    scores: tuple[str, ...]
    """Names of the scores."""
    results: tuple[Result, ...]
    """Areas of each experiment and score."""
    trained: tuple[Trained, ...]
    """Training of each experiment, in the order of `experiments`."""
    costs: dict[tuple[str, str], Cost]
    """Cost by variant and score."""

    @property
    def variants(self) -> tuple[str, ...]:
        """The variants, in the order in which they were asked for."""
        return tuple(dict.fromkeys(experiment.variant for experiment in self.experiments))

    @property
    def normals(self) -> tuple[tuple[str, ...], ...]:
        """The sets of normal classes, each of which is a comparison of its own."""
        return tuple(dict.fromkeys(experiment.normal for experiment in self.experiments))

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds, ascending."""
        return tuple(sorted({experiment.seed for experiment in self.experiments}))

    def having(self, score: str) -> tuple[str, ...]:
        """Return the variants that have a score.

        Parameters
        ----------
        score
            Name of the score.

        Returns
        -------
        tuple[str, ...]
            Names of variants.
        """
        return tuple(dict.fromkeys(experiment.variant for experiment in self.experiments if score in experiment.scores))

    def select(self, normal: tuple[str, ...], variant: str, score: str) -> list[Result]:
        """Return the results of all seeds.

        Parameters
        ----------
        normal
            Names of the normal classes.
        variant
            Name of the variant.
        score
            Name of the score.

        Returns
        -------
        list[Result]
            Results, in the order of the experiments.
        """
        return [
            result
            for result in self.results
            if (result.experiment.normal, result.experiment.variant, result.score) == (normal, variant, score)
        ]


def gather(experiments: Sequence[Experiment], settings: Settings, dataset: Dataset, folder: Path) -> Comparison:
    """Measure the files of complete experiments.

    Parameters
    ----------
    experiments
        The experiments.
    settings
        Settings that they share.
    dataset
        The images.
    folder
        Folder of the comparison.

    Returns
    -------
    Comparison
        The results.

    Raises
    ------
    DatasetError
        If a file is damaged, or a class has no test images.
    """
    results = [
        _measure(experiment, score, dataset, folder) for experiment in experiments for score in experiment.scores
    ]
    return Comparison(
        settings=settings,
        dataset=dataset,
        experiments=tuple(experiments),
        scores=tuple(dict.fromkeys(score for experiment in experiments for score in experiment.scores)),
        results=tuple(results),
        trained=tuple(read_trained(experiment, folder) for experiment in experiments),
        costs=_measure_costs(experiments, dataset, folder),
    )


def _measure(experiment: Experiment, score: str, dataset: Dataset, folder: Path) -> Result:
    scores = read_scores(experiment, score, dataset, folder)
    if not np.isfinite(scores).all():
        raise DatasetError(
            f"{experiment}, score {score}: {int((~np.isfinite(scores)).sum())} test images have no finite score"
        )
    parted = part(scores, experiment.normal, dataset)
    normal = parted.pop(None)
    areas = {
        name: Area({metric.name: metric.measure(normal, values) for metric in IMAGE_METRICS})
        for name, values in parted.items()
        if name is not None
    }
    return Result(experiment, score, areas)


def part(
    scores: NDArray[np.float32], normal: tuple[str, ...], dataset: Dataset
) -> dict[str | None, NDArray[np.float32]]:
    """Split the scores of the test images by class.

    Parameters
    ----------
    scores
        float32 [n], in the order of the test images.
    normal
        Names of the normal classes.
    dataset
        The images.

    Returns
    -------
    dict[str or None, NDArray[np.float32]]
        Scores of the normal images (None), of each anomalous class, and of `ALL` anomalous images.

    Raises
    ------
    DatasetError
        If there are no normal or no anomalous test images.
    """
    labels = dataset.test.labels
    anomalous = [name for name in dataset.classes if name not in normal]
    parts: dict[str | None, NDArray[np.float32]] = {None: scores[np.isin(labels, dataset.indices(normal))]}
    for name in anomalous:
        parts[name] = scores[labels == dataset.classes.index(name)]
    parts = {name: values for name, values in parts.items() if name is None or len(values)}
    if not len(parts[None]) or len(parts) == 1:
        what = "normal" if not len(parts[None]) else "anomalous"
        raise DatasetError(f"{dataset.name} has no {what} test images (normal: {', '.join(normal)}); add some")
    parts[ALL] = np.concatenate([values for name, values in parts.items() if name is not None])
    return parts


def _measure_costs(experiments: Sequence[Experiment], dataset: Dataset, folder: Path) -> dict[tuple[str, str], Cost]:
    """Time the first experiment of each variant in turns, so that other load affects all variants."""
    first = {experiment.variant: experiment for experiment in reversed(experiments)}
    paths = {
        (variant, score): folder / experiment.folder / f"{score}.onnx"
        for variant, experiment in first.items()
        for score in experiment.scores
    }
    inspectors = {key: Inspector(path, provider="cpu") for key, path in paths.items()}
    image = dataset.test.images[:1]
    times: dict[tuple[str, str], list[float]] = {key: [] for key in paths}
    for _ in range(_TIMED_RUNS):
        for key, inspector in inspectors.items():
            started = time.perf_counter()
            inspector.infer(image)
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
