"""The report of an evaluation: metrics.json for machines and one self-contained page for people."""

from __future__ import annotations

import base64
import dataclasses
import json
from pathlib import Path

import jinja2

from onspect.calibration.evaluate import Evaluation
from onspect.calibration.gallery import draw_gallery
from onspect.calibration.metrics import trace_curves
from onspect.calibration.pixels import FPR_LIMIT
from onspect.calibration.plots import plot_precision_recall, plot_roc, plot_scores
from onspect.calibration.scores import count_kinds, part_scores
from onspect.runtime.card import describe
from onspect.runtime.files import write_atomically
from onspect.runtime.inspector import Inspector
from onspect.runtime.model_file import ModelFile

_MOST_FAULTS = 50


def write_report(folder: Path, evaluation: Evaluation, inspector: Inspector, title: str) -> Path:
    """Write report.html and then metrics.json into an existing folder, each whole or not at all; return the page.

    Both are made in memory first, so an error while drawing leaves what an earlier report wrote as it was. Raises
    OutputError where the folder cannot be written.
    """
    page = render_page(evaluation, inspector, title).encode()
    metrics = json.dumps({"title": title} | evaluation.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)
    path = folder / "report.html"
    write_atomically(path, page)
    write_atomically(folder / "metrics.json", f"{metrics}\n".encode())
    return path


def render_page(evaluation: Evaluation, inspector: Inspector, title: str) -> str:
    """Return the page as HTML that needs no other file, no network and no script."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("onspect.calibration", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure"] = format_figure
    environment.filters["percent"] = format_percent
    template = environment.get_template("report.html.j2")
    return template.render(
        title=title,
        evaluation=evaluation,
        counts=count_kinds([result.image for result in evaluation.results]),
        plots=_draw_plots(evaluation),
        gallery=draw_gallery(evaluation, inspector),
        facts=_split_card(evaluation.model),
        faults=evaluation.faults[:_MOST_FAULTS],
        fpr_limit=FPR_LIMIT,
    )


def format_figure(value: float | None) -> str:
    """Return a figure between 0 and 1 with four decimals, a dash where it is undefined."""
    return "–" if value is None else f"{value:.4f}"  # noqa: RUF001 - a dash in print


def format_percent(value: float | None) -> str:
    """Return a share in percent with one decimal, a dash where it is undefined."""
    return "–" if value is None else f"{value:.1%}"  # noqa: RUF001 - a dash in print


def _draw_plots(evaluation: Evaluation) -> dict[str, str]:
    good, defective = part_scores(evaluation.results)
    plots = {"scores": plot_scores(good, defective, evaluation.threshold.score)}
    if evaluation.areas.auroc is not None and evaluation.areas.aupr is not None:
        curves = trace_curves(good, defective)
        plots["roc"] = plot_roc(curves, evaluation.confusion, evaluation.areas.auroc)
        plots["precision_recall"] = plot_precision_recall(curves, evaluation.confusion, evaluation.areas.aupr)
    return {name: f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}" for name, svg in plots.items()}


def _split_card(model: ModelFile) -> list[tuple[str, str]]:
    """Return the model card's facts, without the folders of the machine that made the report."""
    card = describe(dataclasses.replace(model, path=Path(model.path.name)))
    names_and_facts = (line.partition(" ") for line in card.splitlines())
    return [(name, fact.strip()) for name, _, fact in names_and_facts]
