"""The output of bench: plain text, a table for each question."""

from __future__ import annotations

from collections.abc import Iterator

from onspect.runtime.bench.results import STAGES, Bench, Load, ModelBench
from onspect.runtime.text import format_facts

BUSY = "THIS MACHINE WAS BUSY: wall-clock times are too long; processor times and ratios are still usable"


def describe_bench(bench: Bench) -> str:
    """Return the results of a bench as text.

    Parameters
    ----------
    bench
        The results.

    Returns
    -------
    str
        The lines of facts and tables.
    """
    machine = bench.machine
    facts = [
        ("machine", f"{machine.processor}, {machine.cores} cores, {machine.system}"),
        ("versions", ", ".join(f"{name} {version}" for name, version in machine.versions.items())),
        ("load", describe_load(bench.load, machine.cores)),
        ("images", bench.images),
    ]
    lines = format_facts(facts, 10)
    for model in bench.models:
        lines += ["", *_describe_model(model, machine.cores)]
    if bench.ratios:
        first, second = (model.label for model in bench.models)
        lines += ["", f"{second} over {first}, taken in turns (median, 10% to 90%)"]
        lines += [
            f"  {item.name:<40}{item.ratio.median:>7.2f}{item.ratio.low:>9.2f} to {item.ratio.high:.2f}"
            for item in bench.ratios
        ]
    return "\n".join(lines)


def describe_load(load: Load, cores: int) -> str:
    """Describe how busy the machine was, and the effect on the results.

    Parameters
    ----------
    load
        The load by other processes.
    cores
        Number of usable cores.

    Returns
    -------
    str
        One sentence without its full stop.
    """
    words = f"one busy thread of ours got {load.share:.0%} of a processor"
    if load.others is not None:
        words = f"other processes used {load.others:.1f} of {cores} processors, {words}"
    return f"{words}; {BUSY}" if load.busy else words


def _describe_model(model: ModelBench, cores: int) -> Iterator[str]:
    width, height, channels = model.size
    colour = "mono" if channels == 1 else "colour"
    yield f"{model.label} ({model.precision}, {width} x {height} {colour}, on {model.provider})"
    yield "  one image, one thread, ms" + "".join(f"{name:>10}" for name in STAGES) + f"{'sum':>10}"
    for words, times in (("by the clock", model.stages.wall), ("of a processor", model.stages.cpu)):
        yield f"    {words:<23}" + "".join(f"{times[name]:>10.2f}" for name in STAGES) + f"{sum(times.values()):>10.2f}"
    yield f"  that allows {model.bound:.0f} images/s on {cores} cores"
    yield "  files to verdicts         workers     batch  images/s   10% to 90%     of the bound"
    for cell in model.throughput:
        share = cell.images.median / (model.bound * cell.workers / cores)
        spread = f"{cell.images.low:.0f} to {cell.images.high:.0f}"
        yield f"{cell.workers:>35}{cell.batch:>10}{cell.images.median:>10.0f}   {spread:<13}{share:>16.2f}"
    yield "  frame to verdict, ms      threads     batch       p50       p95       p99"
    for run in model.latency:
        provider = "" if run.provider == "cpu" else f"    on {run.provider}"
        yield f"{provider:<25}{run.threads:>10}{run.batch:>10}{run.p50:>10.2f}{run.p95:>10.2f}{run.p99:>10.2f}"
    paced, start = model.paced, model.start
    yield (
        f"  at {paced.rate:g} frames/s: p50 {paced.p50:.2f} ms, p99 {paced.p99:.2f} ms, {paced.cpu:.2f} processors busy"
    )
    yield f"  process start to first verdict: {start.verdict:.0f} ms (the imports alone: {start.imports:.0f} ms)"
    if start.first_memory is None or start.peak_memory is None:
        yield "  memory: not reported by this system"
    else:
        yield f"  memory: {start.first_memory:.0f} MiB after the first verdict, {start.peak_memory:.0f} MiB after all"
