"""Tables of a comparison: rows of text for Markdown and HTML, and CSV and JSON with every figure."""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from onspect.calibration.metrics.image import IMAGE_METRICS
from onspect.compare.experiments import Trained
from onspect.compare.published import VARIANTS as PAPER_VARIANTS
from onspect.compare.published import PrintedTable, find_printed
from onspect.compare.results import ALL, Comparison, Result
from onspect.export.scores import MEMORY

MEAN = "mean of the classes"
"""The row of a table with the mean over the anomalous classes."""

RULES = (
    "The normal class is the one under test and anomalous images are positive. AUROC is the area under the ROC curve, "
    "in which a pair of equal scores counts half. AUPR is average precision: the sum over all thresholds of precision "
    "times the step in recall, without interpolation; images of equal score are taken together (scikit-learn's "
    "roc_auc_score and average_precision_score). Scores come from the exported ONNX file."
)
"""Conditions for comparing these figures with others."""

_IN_PAPER = ("auroc", "aupr")
"""The image metrics that the paper prints, in its order."""


@dataclass(frozen=True)
class Table:
    """A table of text."""

    title: str
    """Heading of the table."""
    header: tuple[str, ...]
    """Names of the columns."""
    rows: tuple[tuple[str, ...], ...]
    """Cells of each row; the first cell names the row."""
    notes: tuple[str, ...] = ()
    """Sentences below the table."""


def make_tables(comparison: Comparison) -> list[Table]:
    """Return all tables of a comparison: the scores, each score by class, and the costs of the variants.

    With several sets of normal classes, these are the rows instead of the anomalous classes. CSV and JSON have both.

    Parameters
    ----------
    comparison
        The results.

    Returns
    -------
    list[Table]
        The tables, in the order of the page.
    """
    tables = [_summarise(comparison)] if len(comparison.scores) > 1 else []
    if len(comparison.normals) > 1:
        tables += [_list_normals(comparison, score) for score in comparison.scores]
    else:
        tables += [_list_classes(comparison, comparison.normals[0], score) for score in comparison.scores]
    return [*tables, _list_trainings(comparison), _list_files(comparison)]


def to_markdown(table: Table) -> str:
    """Return a table as Markdown, under a heading.

    Parameters
    ----------
    table
        The table.

    Returns
    -------
    str
        The text.
    """

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    rule = "|---|" + "---:|" * (len(table.header) - 1)
    lines = [f"## {table.title}", "", line(table.header), rule, *map(line, table.rows), ""]
    return "\n".join([*lines, *(f"{note}\n" for note in table.notes)])


def to_csv(comparison: Comparison) -> str:
    """Return the areas as CSV, one line for each normal set, variant, seed, score and anomalous class.

    Parameters
    ----------
    comparison
        The results.

    Returns
    -------
    str
        The text, with a header.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["normal", "variant", "seed", "score", "anomalous", *(metric.name for metric in IMAGE_METRICS)])
    for result in comparison.results:
        run = result.experiment
        for name, area in result.areas.items():
            known = ["+".join(run.normal), run.variant, run.seed, result.score, name]
            writer.writerow([*known, *(f"{area.values[metric.name]:.6f}" for metric in IMAGE_METRICS)])
    return buffer.getvalue()


def to_json(comparison: Comparison, machine: dict[str, Any]) -> str:
    """Return every figure as JSON.

    Parameters
    ----------
    comparison
        The results.
    machine
        Result of `describe_machine`.

    Returns
    -------
    str
        The text.
    """
    content = {
        "settings": asdict(comparison.settings),
        "collection": comparison.dataset.name,
        "classes": comparison.dataset.classes,
        "rules": RULES,
        "machine": machine,
        "trained": [
            experiment.identify() | asdict(trained)
            for experiment, trained in zip(comparison.experiments, comparison.trained, strict=True)
        ],
        "costs": [
            {"variant": variant, "score": score} | asdict(cost) for (variant, score), cost in comparison.costs.items()
        ],
        "results": [
            result.experiment.identify()
            | {"score": result.score, "mean": result.mean.values}
            | {"classes": {name: area.values for name, area in result.areas.items()}}
            for result in comparison.results
        ],
    }
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _summarise(comparison: Comparison) -> Table:
    """Return the mean AUROC of each score and variant, over all normal and anomalous classes."""
    rows = []
    for score in comparison.scores:
        cells = []
        for variant in comparison.variants:
            if variant not in comparison.having(score):
                cells.append("")
                continue
            by_seed = [
                statistics.fmean(
                    result.mean.auroc
                    for result in comparison.results
                    if (result.experiment.variant, result.experiment.seed, result.score) == (variant, seed, score)
                )
                for seed in comparison.seeds
            ]
            cells.append(_spread(by_seed))
        rows.append((describe_score(score), *cells))
    return Table(
        "Mean AUROC of each score", ("score", *map(str.upper, comparison.variants)), tuple(rows), _notes(comparison)
    )


def describe_score(score: str) -> str:
    """Return the name of a score, marked if it uses a pretrained network.

    Parameters
    ----------
    score
        Name of the score.

    Returns
    -------
    str
        Name for a table.
    """
    return f"{score} (pretrained)" if score == MEMORY else score


def describe_column(score: str, variant: str) -> str:
    """Return the heading for the figures of a score: the variant, or the memory, which does not depend on it.

    Parameters
    ----------
    score
        Name of the score.
    variant
        Name of the variant.

    Returns
    -------
    str
        Heading of the column.
    """
    return score if score == MEMORY else variant.upper()


def _list_normals(comparison: Comparison, score: str) -> Table:
    """Return the table of the one-against-rest protocol: each set of normal classes, and their mean."""
    rows, means = [], []
    variants = comparison.having(score)
    for normal in comparison.normals:
        of_variants = [comparison.select(normal, variant, score) for variant in variants]
        values = [
            [area.auroc for area in areas]
            for results in of_variants
            for areas in ([result.mean for result in results], [result.areas[ALL] for result in results])
        ]
        rows.append((" and ".join(normal), *map(_spread, values)))
        means.append(list(map(statistics.fmean, values)))
    rows.append(("mean", *(f"{statistics.fmean(column):.4f}" for column in zip(*means, strict=True))))
    names = [describe_column(score, variant) for variant in variants]
    header = ["normal", *(f"{name} AUROC, {part}" for name in names for part in (MEAN, ALL))]
    return Table(f"One against the rest, score {describe_score(score)}", tuple(header), tuple(rows), _notes(comparison))


def _list_classes(comparison: Comparison, normal: tuple[str, ...], score: str) -> Table:
    """Return a table as the paper's 5 and 6: a row for each anomalous class, the image metrics of each variant."""
    printed = find_printed(comparison.dataset.name, normal)
    columns = None if score == MEMORY else printed  # the paper has no memory
    variants = comparison.having(score)
    results = {variant: comparison.select(normal, variant, score) for variant in variants}
    names = list(next(iter(results.values()))[0].areas)
    header = ["anomalous"]
    for variant in variants:
        for metric in IMAGE_METRICS:
            in_paper = columns is not None and metric.name in _IN_PAPER
            header += [f"{describe_column(score, variant)} {metric.title}", *(["paper"] if in_paper else [])]
    rows = []
    for name in [*names[:-1], MEAN, ALL]:
        cells = [name]
        for variant in variants:
            for metric in IMAGE_METRICS:
                areas = [result.mean if name == MEAN else result.areas[name] for result in results[variant]]
                cells.append(_spread([area.values[metric.name] for area in areas]))
                if columns and metric.name in _IN_PAPER:
                    cells.append(_find_printed_cell(columns, name, variant, _IN_PAPER.index(metric.name)))
        rows.append(tuple(cells))
    notes = list(_notes(comparison))
    if printed:
        notes.append(_count_reached(printed, results, score))
    title = f"Normal: {' and '.join(normal)}, score {describe_score(score)}"
    return Table(title, tuple(header), tuple(rows), tuple(notes))


def _find_printed_cell(printed: PrintedTable, name: str, variant: str, index: int) -> str:
    if name == MEAN:
        known = [areas[index] for (_, column), areas in printed.areas.items() if column == variant]
        return f"{statistics.fmean(known):.4f}"
    areas = printed.areas.get((name, variant))
    return "" if areas is None else f"{areas[index]:.4f}"


def _count_reached(printed: PrintedTable, results: dict[str, list[Result]], score: str) -> str:
    """Return how many of the paper's cells the same variant reaches, to the four printed decimals."""
    same = total = best = rows = 0
    for name in dict.fromkeys(name for name, _ in printed.areas):
        for index, metric in enumerate(_IN_PAPER):
            found = {
                variant: round(statistics.fmean(result.areas[name].values[metric] for result in of_variant), 4)
                for variant, of_variant in results.items()
                if name in of_variant[0].areas
            }
            cells = {variant: printed.areas[name, variant][index] for variant in PAPER_VARIANTS}
            same += sum(value >= cells[variant] for variant, value in found.items())
            total += len(found)
            best += bool(found) and max(found.values()) >= max(cells.values())
            rows += bool(found)
    if score == MEMORY:
        return f"In {best} of {rows} rows (AUROC and AUPR counted apart) it reaches the best of {printed.title}."
    return (
        f'Columns headed "paper" are its {printed.title}. {same} of {total} cells are reached or beaten by the same '
        f"variant. In {best} of {rows} rows (AUROC and AUPR counted apart) the best variant reaches the best one there."
    )


def _list_trainings(comparison: Comparison) -> Table:
    """Return the cost of each variant's training, with times relative to the first variant."""
    printed = find_printed(comparison.dataset.name, comparison.normals[0]) if len(comparison.normals) == 1 else None
    columns: dict[str, Mapping[str, float | None]] = {
        "training, s": _mean_by_variant(comparison, lambda trained: trained.seconds),
        "processor time, s": _mean_by_variant(comparison, lambda trained: trained.cpu_seconds),
    }
    if printed:
        columns["paper, s"] = {variant: printed.seconds[variant] for variant in comparison.variants}
    rows = []
    for variant in comparison.variants:
        times = [
            text
            for column in columns.values()
            for text in (_format(column[variant], ".1f"), _format(_ratio(column, variant), ".2f"))
        ]
        parameters = next(cost.parameters for (name, _), cost in comparison.costs.items() if name == variant)
        rows.append((variant.upper(), f"{parameters:,}", *times))
    header = ["variant", "parameters", *(title for name in columns for title in (name, "ratio"))]
    return Table("Training", tuple(header), tuple(rows), (_describe_timing(comparison),))


def _list_files(comparison: Comparison) -> Table:
    """Return the cost of each file on the line."""
    rows = []
    for score in comparison.scores:
        cells = [describe_score(score)]
        for variant in comparison.variants:
            cost = comparison.costs.get((variant, score))
            cells += ["", ""] if cost is None else [f"{cost.file_bytes / 1e3:.0f}", f"{cost.latency_ms:.2f}"]
        rows.append(tuple(cells))
    header = ["score"]
    for variant in comparison.variants:
        header += [f"{variant.upper()} file, kB", "latency, ms"]
    note = "Latency is the median of one image on one thread (onnxruntime), all files in turns."
    return Table("The exported files", tuple(header), tuple(rows), (note,))


def _describe_timing(comparison: Comparison) -> str:
    jobs = max(trained.jobs for trained in comparison.trained)
    threads = max(trained.threads for trained in comparison.trained)
    beside = f"up to {jobs} trainings at the same time" if jobs > 1 else "one training after the other"
    return (
        f"Times are means over the trainings; {beside}, {threads} thread{'s' * (threads != 1)} each. Processor time is "
        "that of all threads of a training, without trainings that were interrupted; ratios are to the first variant."
    )


def _mean_by_variant(comparison: Comparison, take: Callable[[Trained], float | None]) -> dict[str, float | None]:
    """Return the mean over a variant's trainings that have the figure; None if there are none."""
    found: dict[str, list[float]] = {variant: [] for variant in comparison.variants}
    for experiment, trained in zip(comparison.experiments, comparison.trained, strict=True):
        value = take(trained)
        if value is not None:
            found[experiment.variant].append(value)
    return {variant: statistics.fmean(values) if values else None for variant, values in found.items()}


def _ratio(column: Mapping[str, float | None], variant: str) -> float | None:
    """Return a variant's figure as a multiple of the first variant's."""
    value, base = column[variant], next(iter(column.values()))
    return value / base if value is not None and base else None


def _format(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _notes(comparison: Comparison) -> tuple[str, ...]:
    count = len(comparison.seeds)
    notes = [f"Mean ± standard deviation of {count} seeds." if count > 1 else f"One seed ({comparison.seeds[0]})."]
    if comparison.settings.limit is not None:
        notes.append(f"Only the first {comparison.settings.limit} images of each class were used (--limit).")
    return tuple(notes)


def _spread(values: Sequence[float]) -> str:
    mean = f"{statistics.fmean(values):.4f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.4f}"
