"""The results of a bench as an SVG picture of bars, drawn without a plotting library."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from onspect.runtime.bench.results import STAGES, Bench, ModelBench
from onspect.runtime.bench.tables import describe_load
from onspect.runtime.text import count_of

_WIDTH = 960
_LEFT = 170  # start of the bars
_BARS = 420  # length of the longest bar
_ROW = 22
_COLOURS = ("#4e79a7", "#76b7b2", "#f28e2b", "#b07aa1", "#222222")


_Row = tuple[str, Sequence[tuple[float, float, int]], str]
"""A label, bars (begin, end, 0 to 1, and index of the colour), and words behind them. A heading has no bars."""


def draw_bench(bench: Bench) -> str:
    """Draw the stages, the throughput and the latency of each model.

    Parameters
    ----------
    bench
        The results.

    Returns
    -------
    str
        The text of an SVG document.
    """
    load = describe_load(bench.load, bench.machine.cores).split("; ")
    headings = [f"{bench.machine.processor}, {bench.machine.cores} cores", *load, bench.images]
    rows: list[_Row] = [(line, (), "") for line in headings]
    for model in bench.models:
        rows += [("", (), ""), (model.label, (), ""), *_list_rows(model, bench)]
    size = f'width="{_WIDTH}" height="{20 + _ROW * len(rows)}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">'
    parts = (part for number, row in enumerate(rows) for part in _draw(row, 10 + _ROW * number))
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *parts, "</svg>\n"])


def _draw(row: _Row, top: int) -> Iterator[str]:
    """Yield the elements of a row."""
    label, bars, words = row
    begin, anchor = (_LEFT - 8, "end") if bars else (16, "start")
    yield f'<text x="{begin}" y="{top + 15}" text-anchor="{anchor}">{escape(label)}</text>'
    for low, high, colour in bars:
        box = f'x="{_LEFT + _BARS * low:.1f}" width="{max(1.5, _BARS * (high - low)):.1f}"'
        yield f'<rect {box} y="{top + 3}" height="{_ROW - 6}" fill="{_COLOURS[colour]}"/>'
    end = _LEFT + _BARS * max((high for _, high, _ in bars), default=0.0)
    yield f'<text x="{end + 6:.1f}" y="{top + 15}">{escape(words)}</text>'


def _list_rows(model: ModelBench, bench: Bench) -> Iterator[_Row]:
    costs = [other.stages.by_provider(other.provider) for other in bench.models]
    times, longest, left = model.stages.by_provider(model.provider), max(sum(cost.values()) for cost in costs), 0.0
    bars = []
    for colour, name in enumerate(STAGES):
        bars.append((left, left + times[name] / longest, colour))
        left = bars[-1][1]
    words = f"{sum(times.values()):.2f} ms: " + ", ".join(f"{name} {times[name]:.2f}" for name in STAGES)
    yield "one image, one thread", bars, words
    yield f"images/s from files to verdicts; the line: what the stages allow ({model.bound:.0f})", (), ""
    highest = max(max(other.bound, other.best.images.high) for other in bench.models)
    for cell in model.throughput:
        bound = model.bound * cell.workers / bench.machine.cores / highest
        label = f"{count_of(cell.workers, 'worker')}, batch {cell.batch}"
        yield label, ((0.0, cell.images.median / highest, 1), (bound, bound, 4)), f"{cell.images.median:.0f}"
    yield "ms from frames to verdicts: p50 to p99", (), ""
    slowest = max(run.p99 for other in bench.models for run in other.latency)
    for run in model.latency:
        provider = "" if run.provider == "cpu" else f"{run.provider}, "
        label = f"{provider}{count_of(run.threads, 'thread')}, batch {run.batch}"
        yield label, ((run.p50 / slowest, run.p99 / slowest, 0),), f"{run.p50:.2f} to {run.p99:.2f}"
