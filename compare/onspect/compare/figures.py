"""Figures of a comparison as SVG: reconstructions of each variant, and the curves behind the areas."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from onspect.calibration.metrics.image import trace_curves
from onspect.calibration.report.plots import to_svg
from onspect.compare.experiments import Experiment, read_scores
from onspect.compare.published import find_printed
from onspect.compare.results import ALL, Comparison, part
from onspect.compare.tables import describe_column
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.inspection.visualization import to_bgr

_STYLE: Any = {
    "svg.hashsalt": "onspect",  # the same data gives the same bytes
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}
_LINES = {"cae": ("#0072B2", "-"), "vae": ("#D55E00", "--"), "aae": ("#009E73", "-.")}  # Okabe and Ito's palette


def draw_figures(comparison: Comparison, folder: Path) -> dict[str, bytes]:
    """Return the figures of the first seed: examples, and ROC and PR curves for each score.

    Parameters
    ----------
    comparison
        The results.
    folder
        Folder of the comparison.

    Returns
    -------
    dict[str, bytes]
        SVG by file name; empty with several sets of normal classes, which only the tables show.
    """
    if len(comparison.normals) > 1:
        return {}
    experiments = {experiment.variant: experiment for experiment in reversed(comparison.experiments)}
    with mpl.rc_context(_STYLE):
        figures = {"examples.svg": _draw_examples(comparison, experiments, folder)}
        for score in comparison.scores:
            figures[f"curves-{score}.svg"] = _draw_curves(comparison, experiments, score, folder)
    return figures


def _draw_examples(comparison: Comparison, experiments: dict[str, Experiment], folder: Path) -> bytes:
    """Draw inputs beside their reconstructions, as the paper's Figures 3 and 4, with the AUROC below each."""
    dataset, normal = comparison.dataset, comparison.normals[0]
    score = next(score for score in comparison.scores if comparison.having(score))
    shown = choose_examples(comparison, experiments[comparison.having(score)[0]], score, folder)
    images = dataset.test.images[[index for _, index in shown]]
    columns = {"input": images}
    for variant in comparison.having(score):
        inspector = Inspector(folder / experiments[variant].folder / f"{score}.onnx", provider="cpu")
        if inspector.reconstructs:
            columns[variant] = inspector.reconstruct(images)
    figure = Figure(figsize=(1.5 * len(columns) + 0.6, 1.75 * len(shown) + 0.3), layout="constrained")
    axes = figure.subplots(len(shown), len(columns), squeeze=False)
    for column, (variant, pictures) in enumerate(columns.items()):
        axes[0, column].set_title(variant if variant == "input" else variant.upper(), fontsize=9)
        for row, ((name, _), picture) in enumerate(zip(shown, pictures, strict=True)):
            place: Axes = axes[row, column]
            place.imshow(to_bgr(picture)[:, :, ::-1], interpolation="nearest")
            place.set(xticks=[], yticks=[])
            place.spines[:].set_visible(False)
            if variant == "input":
                place.set_ylabel(f"{name} (normal)" if name in normal else name)
            elif name not in normal:
                area = comparison.select(normal, variant, score)[0].areas[name]
                place.set_xlabel(f"AUROC {area.auroc:.4f}", fontsize=8)
    return to_svg(figure)


def choose_examples(comparison: Comparison, experiment: Experiment, score: str, folder: Path) -> list[tuple[str, int]]:
    """Return the test images to show: of each class the one with the median score, so that none is picked by hand.

    The classes are the normal ones and those that the paper shows, otherwise the first three anomalous ones.

    Parameters
    ----------
    comparison
        The results.
    experiment
        Experiment whose scores choose the images.
    score
        Name of the score.
    folder
        Folder of the comparison.

    Returns
    -------
    list[tuple[str, int]]
        Name of the class and index of the image in the test set.
    """
    dataset, normal = comparison.dataset, comparison.normals[0]
    scores = read_scores(experiment, score, dataset, folder)
    anomalous = [name for name in comparison.results[0].areas if name != ALL]
    printed = find_printed(dataset.name, normal)
    chosen = [name for name in (printed.shown if printed else ()) if name in anomalous] or anomalous[:3]
    return [
        (name, _find_median(scores, dataset.test.labels, label))
        for name, label in zip((*normal, *chosen), dataset.indices((*normal, *chosen)), strict=True)
    ]


def _find_median(scores: NDArray[np.float32], labels: NDArray[np.int64], label: int) -> int:
    places = np.flatnonzero(labels == label)
    return int(places[np.argsort(scores[places], kind="stable")[len(places) // 2]])


def _draw_curves(comparison: Comparison, experiments: dict[str, Experiment], score: str, folder: Path) -> bytes:
    """Draw ROC and PR curves of all anomalous classes together against the normal ones."""
    figure = Figure(figsize=(8.4, 4.0), layout="constrained")
    roc, precision = figure.subplots(1, 2)
    normal = comparison.normals[0]
    share = 0.0
    for variant in comparison.having(score):
        parts = part(read_scores(experiments[variant], score, comparison.dataset, folder), normal, comparison.dataset)
        curves = trace_curves(parts[None], parts[ALL])
        area = comparison.select(normal, variant, score)[0].areas[ALL]
        colour, line = _LINES[variant]
        style: Any = {"color": colour, "linestyle": line, "linewidth": 1.8}
        name = describe_column(score, variant)
        label = f"{name}, AUROC {area.auroc:.4f}"
        roc.plot(curves.false_positive_rate, curves.true_positive_rate, label=label, **style)
        label = f"{name}, AUPR {area.aupr:.4f}"
        precision.plot(curves.recall, curves.precision, drawstyle="steps-post", label=label, **style)
        share = len(parts[ALL]) / (len(parts[ALL]) + len(parts[None]))
    roc.plot([0, 1], [0, 1], ":", color="#777777", label="guessing")
    precision.axhline(share, linestyle=":", color="#777777", label="calling everything anomalous")
    roc.set(xlabel="false positive rate", ylabel="true positive rate", title=f"ROC, score {score}")
    precision.set(xlabel="recall", ylabel="precision", title=f"PR, score {score}")
    _finish([roc, precision])
    return to_svg(figure)


def _finish(axes: Sequence[Axes]) -> None:
    for place in axes:
        place.set(xlim=(0, 1), ylim=(0, 1.02))
        place.grid(color="#dddddd", linewidth=0.6)
        place.legend(loc="lower right" if place is axes[0] else "lower left")
