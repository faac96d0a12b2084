"""Plots of the report, as SVG. Line styles and hatching distinguish the curves, so that plots print in grey."""

from __future__ import annotations

import io
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from onspect.calibration.metrics.image import Confusion, CostCurve, Curves
from onspect.calibration.review import ReviewCurve
from onspect.runtime.model.schema import Threshold

_GOOD = "#56B4E9"  # sky blue and vermilion of Okabe and Ito's palette, which colour-blind people can distinguish
_DEFECTIVE = "#D55E00"
_CURVE = "#0072B2"
_MOST_COST = 1.25
_WEIGHTS = (0.01, 0.1, 1.0, 10.0, 100.0)
_STYLE: Any = {
    "svg.hashsalt": "onspect",  # the same data gives the same bytes
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
}


def plot_roc(curves: Curves, confusion: Confusion, auroc: float) -> bytes:
    """Draw the ROC curve with the operating point of the threshold.

    Parameters
    ----------
    curves
        Points of the curve.
    confusion
        Counts at the threshold.
    auroc
        Area under the curve, 0 to 1.

    Returns
    -------
    bytes
        SVG file.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _open_figure(4.2, 4.0)
        axes.plot([0, 1], [0, 1], linestyle=":", color="#777777", label="guessing")
        axes.plot(
            curves.false_positive_rate,
            curves.true_positive_rate,
            color=_CURVE,
            linewidth=2,
            label=f"model, AUROC {auroc:.3f}",
        )
        _mark(axes, confusion.fpr, confusion.recall)
        axes.set(xlabel="false rejects (share of good parts)", ylabel="defects caught (share of defective parts)")
        _finish_unit_square(axes, "lower right")
        return to_svg(figure)


def plot_precision_recall(curves: Curves, confusion: Confusion, aupr: float, share: float) -> bytes:
    """Draw the precision-recall curve with the operating point of the threshold.

    Parameters
    ----------
    curves
        Points of the curve.
    confusion
        Counts at the threshold.
    aupr
        Average precision, 0 to 1.
    share
        Share of defective images, 0 to 1.

    Returns
    -------
    bytes
        SVG file.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _open_figure(4.2, 4.0)
        axes.axhline(share, linestyle=":", color="#777777", label="rejecting everything")
        axes.plot(
            curves.recall,
            curves.precision,
            color=_CURVE,
            linewidth=2,
            drawstyle="steps-post",
            label=f"model, AUPR {aupr:.3f}",
        )
        _mark(axes, confusion.recall, confusion.precision)
        axes.set(xlabel="defects caught (share of defective parts)", ylabel="right rejects (share of rejected parts)")
        _finish_unit_square(axes, "lower left")
        return to_svg(figure)


def plot_cost(curve: CostCurve, weight: float | None, *, banded: bool) -> bytes:
    """Draw the cost of mistakes against the weight of an escape.

    Parameters
    ----------
    curve
        Costs at the threshold and at the best one.
    weight
        Weight that the threshold was chosen for, marked in the plot; None for no mark.
    banded
        Whether there is a review band.

    Returns
    -------
    bytes
        SVG file.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _open_figure(4.2, 4.0)
        axes.axhspan(1.0, _MOST_COST, facecolor="#777777", alpha=0.15, label="costs more than no inspection")
        axes.plot(curve.weight, curve.stamped, color="black", linestyle="--", linewidth=2, label="this threshold")
        if banded:
            words = "with its review band, at no cost"
            axes.plot(curve.weight, curve.reviewed, color="black", linestyle="-.", label=words)
        axes.plot(
            curve.weight, curve.best, color=_CURVE, linewidth=2, clip_on=False, label="the cheapest threshold here"
        )
        if weight is not None and curve.weight[0] <= weight <= curve.weight[-1]:
            axes.axvline(weight, color=_DEFECTIVE, linewidth=1.2, label=f"asked for: {weight:.3g}")
        axes.set_xscale("log")
        axes.set(
            xlim=(curve.weight[0], curve.weight[-1]),
            ylim=(0, _MOST_COST),
            xlabel="false rejects that cost as much as one escape",
            ylabel="cost of mistakes (100%: no inspection)",
        )
        axes.minorticks_off()
        axes.set_xticks(_WEIGHTS, [f"1/{round(1 / weight)}" if weight < 1 else f"{weight:g}" for weight in _WEIGHTS])
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        figure.legend(loc="outside upper left")
        return to_svg(figure)


def plot_review(curve: ReviewCurve, confusion: Confusion, *, banded: bool) -> bytes:
    """Draw the escapes against the share of good parts that a person sees, and mark the file's own band.

    Parameters
    ----------
    curve
        Shares for each possible review band.
    confusion
        Counts at the threshold.
    banded
        Whether there is a review band.

    Returns
    -------
    bytes
        SVG file.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _open_figure(4.2, 4.0)
        axes.plot(curve.good, curve.escapes, color=_CURVE, linewidth=2, label="any band below the threshold")
        x, y = confusion.review_good / confusion.good, confusion.escapes or 0.0
        label = "the file's band" if banded else "the file: no band"
        axes.plot([x], [y], "o", color="black", markersize=7, clip_on=False, zorder=3, label=label)
        axes.set(xlim=(0, 1), xlabel="good parts sent to a person (share)", ylabel="defects that pass unseen (share)")
        axes.set_ylim(bottom=0)
        axes.legend(loc="upper right")
        return to_svg(figure)


def plot_scores(
    good: NDArray[np.float64], defective: NDArray[np.float64], threshold: Threshold | None, noun: str = "images"
) -> bytes:
    """Draw histograms of the scores of good and defective parts, with threshold and review band.

    The axis of the scores is logarithmic if they span more than a factor of 30.

    Parameters
    ----------
    good
        Scores of the good images or parts, float [n].
    defective
        Scores of the defective images or parts, float [m].
    threshold
        The file's threshold, or None.
    noun
        Unit of the counts, for the axis.

    Returns
    -------
    bytes
        SVG file.
    """
    cuts = [] if threshold is None else [cut for cut in (threshold.review, threshold.score) if cut is not None]
    every = np.concatenate([good, defective, cuts])
    logarithmic = every.min() > 0 and every.max() / every.min() > 30
    edges = (np.geomspace if logarithmic else np.linspace)(every.min(), _above(every.max()), 41).tolist()
    with mpl.rc_context(_STYLE):
        figure, axes = _open_figure(8.6, 3.2)
        if len(good):
            axes.hist(good, edges, color=_GOOD, edgecolor="white", label=f"good ({len(good)})")
        if len(defective):
            axes.hist(
                defective,
                edges,
                histtype="step",
                hatch="////",
                color=_DEFECTIVE,
                linewidth=1.4,
                label=f"defective ({len(defective)})",
            )
        if len(cuts) > 1:
            axes.axvspan(*cuts, facecolor="#999999", alpha=0.3, hatch="..", label=f"review from {cuts[0]:.4g}")
        if cuts:
            words = f"rejected from {cuts[-1]:.4g}"
            axes.axvline(cuts[-1], color="black", linestyle="--", linewidth=1.4, label=words)
        if logarithmic:
            axes.set_xscale("log")
        axes.set(xlabel="score (higher is worse)", ylabel=noun)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(loc="best")
        return to_svg(figure)


def _above(value: float) -> float:
    """Return a value slightly above another one, so that a histogram of equal values has bins."""
    return value * 1.001 if value > 0 else value + 1e-6


def _open_figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _mark(axes: Axes, x: float | None, y: float | None) -> None:
    if x is not None and y is not None:
        axes.plot([x], [y], "o", color="black", markersize=7, clip_on=False, zorder=3, label="at the threshold")


def _finish_unit_square(axes: Axes, legend: Literal["lower left", "lower right"]) -> None:
    axes.set(xlim=(0, 1), ylim=(0, 1.02), aspect="equal")
    axes.legend(loc=legend)


def to_svg(figure: Figure) -> bytes:
    """Return a figure as SVG. Equal figures give equal bytes.

    Parameters
    ----------
    figure
        The figure.

    Returns
    -------
    bytes
        The SVG file.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return buffer.getvalue()
