"""Does `onspect drift` keep its false-alarm bound, and how soon does it notice a change? A simulation.

Draws log-normal scores for calibration and line, so only the script causes changes. The first table has the share of
unchanged lines with an alarm, beside the bound N / A + 0.1%, at an A that is low enough for some alarms. A second test
in it ranks the line against the calibration alone. The next table uses the A of the command: the number of parts until
a change is noticed, and the error of the estimated beginning. Changes are in spreads of the scores' logarithms. One
part in twenty is defective throughout. Prints tables and writes JSON. Needs onspect[cpu], and about ten minutes on one
idle core.

    python benchmarks/drift.py [--draws 200] [--json result.json]
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onspect.runtime.drift.detector import START_CHANCE, Alarm, Drift

SPREAD = 0.5
"""Standard deviation of the scores' natural logarithm."""

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Line:
    """Scores of a calibration's good parts, its threshold, and a line's scores."""

    good: Scores
    threshold: float
    parts: Scores


def draw_line(random: np.random.Generator, good: int, parts: int, shift: float = 0.0, start: int = 0) -> Line:
    """Draw a line whose scores move by `shift` spreads at part `start`; the threshold passes 98% of the good scores."""
    calibration = np.exp(SPREAD * random.normal(size=good))
    logs = random.normal(size=parts)
    logs[start:] += shift
    scores = np.exp(SPREAD * logs)
    defective = random.random(parts) < 0.05
    scores[defective] = np.exp(SPREAD * random.normal(4.0, 2.0, int(defective.sum())))
    return Line(calibration, float(np.quantile(calibration, 0.98)), scores)


def watch(line: Line, run_length: float) -> Alarm | None:
    """Return the alarm of a drift watch."""
    drift = Drift(line.good.tolist(), line.threshold, run_length=run_length)
    return next((alarm for score in line.parts.tolist() if (alarm := drift.update(score)) is not None), None)


def alarms_with_fixed_ranks(random: np.random.Generator, line: Line, run_length: float) -> bool:
    """Return whether the same bets raise an alarm if the line is ranked against the calibration alone."""
    below = np.sort(line.good[line.good < line.threshold])
    parts = line.parts[line.parts < line.threshold]
    above = len(below) - np.searchsorted(below, parts)
    high = (above + random.random(len(parts))) / (len(below) + 1)
    statistics = np.zeros(8)
    powers = np.array([0.9, 0.75, 0.5, 0.25])
    for p in high:
        statistics = (1.0 + statistics) * np.concatenate([powers * p ** (powers - 1), powers * (1 - p) ** (powers - 1)])
        if statistics.mean() >= run_length:
            return True
    return False


def main() -> None:
    """Run the simulation and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    draws = arguments.draws
    random = np.random.default_rng(0)
    result: dict[str, object] = {"draws": draws}

    print(f"unchanged lines with an alarm, {draws} draws\n")
    print(
        "| good scores | A | parts | bound | alarms | ranked against the calibration alone |\n|---|---|---|---|---|---|"
    )
    for good, run_length, parts in ((20, 1000, 100), (60, 1000, 100), (60, 10_000, 2000), (300, 10_000, 2000)):
        lines = [draw_line(random, good, parts) for _ in range(draws)]
        share = float(np.mean([watch(line, run_length) is not None for line in lines]))
        fixed = float(np.mean([alarms_with_fixed_ranks(random, line, run_length) for line in lines]))
        bound = parts / run_length + START_CHANCE
        result[f"unchanged {good} {run_length} {parts}"] = {"bound": bound, "alarms": share, "fixed": fixed}
        print(f"| {good} | {run_length:,} | {parts} | {bound:.1%} | {share:.1%} | {fixed:.1%} |")

    few = max(1, draws // 10)
    print(f"\nchanges, A = 1,000,000, {few} draws of 1,500 parts after the change\n")
    print("| good scores | change | at part | seen | right direction | noticed after | beginning off by |")
    print("|---|---|---|---|---|---|---|")
    for good in (20, 60, 300):
        for start in (0, 100, 2000):
            for shift in (-1.0, -0.5, 0.5, 1.0):
                alarms = [watch(draw_line(random, good, start + 1500, shift, start), 1e6) for _ in range(few)]
                seen = [alarm for alarm in alarms if alarm is not None]
                right = sum((alarm.direction == "rose") == (shift > 0) for alarm in seen)
                after = float(np.median([alarm.noticed - start for alarm in seen])) if seen else None
                off = float(np.median([abs(alarm.began - start) for alarm in seen])) if seen else None
                result[f"{good} {start} {shift}"] = {"seen": len(seen), "right": right, "after": after, "off": off}
                when = ("", "") if after is None or off is None else (f"{after:g}", f"{off:g}")
                cells = (good, f"{shift:+g}", start, f"{len(seen)} of {few}", f"{right} of {len(seen)}", *when)
                print(f"| {' | '.join(map(str, cells))} |")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
