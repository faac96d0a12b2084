"""A bench run as an SVG picture, drawn without a plotting library: the runtime has none, and four bars need none."""

from __future__ import annotations

from html import escape

from onspect.runtime.bench.results import STAGES, Bench, ModelBench
from onspect.runtime.bench.tables import count, describe_load

_WIDTH = 760
_LEFT = 170  # of the bars
_BARS = 470  # their greatest length
_ROW = 22
_COLOURS = {"decode": "#4e79a7", "resize": "#76b7b2", "infer": "#f28e2b", "post": "#b07aa1"}
_RANGE = "#4e79a7"


def draw_bench(bench: Bench) -> str:
    """Return the stages, the throughput and the latency of each model as an SVG document."""
    picture = _Picture()
    picture.write(16, f"{bench.machine.processor}, {bench.machine.cores} cores", bold=True)
    for line in describe_load(bench.load, bench.machine.cores).split("; "):
        picture.write(16, line)
    picture.write(16, bench.images)
    for model in bench.models:
        picture.skip()
        picture.write(16, model.label, bold=True)
        _draw_stages(picture, model, max(sum(_cost(other).values()) for other in bench.models))
        _draw_throughput(picture, model, bench)
        _draw_latency(picture, model, max(run.p99 for other in bench.models for run in other.latency))
    return picture.finish()


class _Picture:
    """Rows from the top downwards."""

    def __init__(self) -> None:
        self._top = 10
        self._parts: list[str] = []

    def skip(self) -> None:
        self._top += _ROW

    def write(self, left: float, text: str, *, bold: bool = False) -> None:
        """Write a line of its own."""
        self.label(left, text, bold=bold)
        self.skip()

    def label(self, left: float, text: str, *, bold: bool = False, end: bool = False) -> None:
        """Write into the row, from left or up to it."""
        style = ' font-weight="bold"' * bold + ' text-anchor="end"' * end
        self._parts.append(f'<text x="{left:.1f}" y="{self._top + 15}"{style}>{escape(text)}</text>')

    def bar(self, left: float, length: float, colour: str) -> None:
        """Draw a bar into the row."""
        self._parts.append(
            f'<rect x="{left:.1f}" y="{self._top + 3}" width="{max(1.0, length):.1f}" height="{_ROW - 6}"'
            f' fill="{colour}"/>'
        )

    def mark(self, left: float) -> None:
        """Draw an upright line through the row."""
        self._parts.append(f'<rect x="{left:.1f}" y="{self._top}" width="1.5" height="{_ROW}" fill="#222"/>')

    def finish(self) -> str:
        """Return the document."""
        size = f'width="{_WIDTH}" height="{self._top + 10}"'
        head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">'
        return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *self._parts, "</svg>\n"])


def _draw_stages(picture: _Picture, model: ModelBench, longest: float) -> None:
    times = _cost(model)
    picture.label(_LEFT - 8, "one image, one thread", end=True)
    left = float(_LEFT)
    for name in STAGES:
        length = _BARS * times[name] / longest
        picture.bar(left, length, _COLOURS[name])
        left += length
    picture.label(left + 6, f"{sum(times.values()):.2f} ms")
    picture.skip()
    left = _LEFT
    for name in STAGES:
        picture.bar(left, 10, _COLOURS[name])
        picture.label(left + 14, f"{name} {times[name]:.2f}")
        left += 105
    picture.skip()


def _draw_throughput(picture: _Picture, model: ModelBench, bench: Bench) -> None:
    highest = max(max(other.bound, other.best.images.high) for other in bench.models)
    picture.write(_LEFT, f"images/s from files to verdicts; the line: what the stages allow ({model.bound:.0f})")
    for cell in model.throughput:
        picture.label(_LEFT - 8, f"{count(cell.workers, 'worker')}, batch {cell.batch}", end=True)
        length = _BARS * cell.images.median / highest
        picture.bar(_LEFT, length, _COLOURS["resize"])
        picture.mark(_LEFT + _BARS * model.bound * cell.workers / bench.machine.cores / highest)
        picture.label(_LEFT + max(length, 0) + 6, f"{cell.images.median:.0f}")
        picture.skip()


def _draw_latency(picture: _Picture, model: ModelBench, longest: float) -> None:
    picture.write(_LEFT, "ms from frames to verdicts: p50 to p99")
    for run in model.latency:
        provider = "" if run.provider == "cpu" else f"{run.provider}, "
        picture.label(_LEFT - 8, f"{provider}{count(run.threads, 'thread')}, batch {run.batch}", end=True)
        picture.bar(_LEFT + _BARS * run.p50 / longest, _BARS * (run.p99 - run.p50) / longest, _RANGE)
        picture.label(_LEFT + _BARS * run.p99 / longest + 6, f"{run.p50:.2f} to {run.p99:.2f}")
        picture.skip()


def _cost(model: ModelBench) -> dict[str, float]:
    return model.stages.by_provider(model.provider)
