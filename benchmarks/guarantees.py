"""Do the promises and intervals of `onspect calibrate` hold? A simulation over many draws of calibration images.

Draws scores of good and defective parts from known distributions, so that the true rates are known, and counts how
often a promise was broken or an interval missed the truth. Prints a table and writes JSON. Needs onspect[cpu,train],
and about two minutes on one idle core, nearly all of it for the bootstrap.

    python benchmarks/guarantees.py [--draws 2000] [--area-draws 100] [--json result.json]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, lognorm, norm

from onspect.calibration.claims import measure_area_intervals
from onspect.calibration.intervals import CONFIDENCE, rate_interval
from onspect.calibration.thresholds import conformal

Scores = NDArray[np.float64]
SHIFT = 1.5
"""Distance of the defective parts' normal scores from the good ones'."""


def check_conformal(random: np.random.Generator, draws: int, count: int, rate: float) -> dict[str, float]:
    """Return the mean true false-reject rate of conformal thresholds and how often it was above the promise.

    Theory (Vovk 2012): the true rate of a draw follows Beta(n + 1 - k, k) with k = ceil((n + 1) * (1 - rate)), whose
    mean is at most `rate`; the share of draws above `rate` is that law's upper tail.
    """
    true_rates = np.array(
        [lognorm.sf(conformal(lognorm.rvs(1.0, size=count, random_state=random), rate), 1.0) for _ in range(draws)]
    )
    rank = int(np.ceil(round((count + 1) * (1.0 - rate), 9)))
    return {
        "mean": float(true_rates.mean()),
        "above": float((true_rates > rate).mean()),
        "theory": float(beta.sf(rate, count + 1 - rank, rank)),
    }


def cover(draws: int, one: Callable[[], bool]) -> float:
    """Return in which share of draws an interval held the truth."""
    return float(np.mean([one() for _ in range(draws)]))


def covers_rate(random: np.random.Generator, count: int, rate: float) -> bool:
    """Draw a rate from `count` images and tell whether its interval holds the true one."""
    low, high = rate_interval(int(random.binomial(count, rate)), count)
    return low <= rate <= high


def covers_auroc(random: np.random.Generator, good: int, defective: int) -> bool:
    """Draw scores of good and defective images and tell whether the AUROC's interval holds the true one."""
    truth = float(norm.cdf(SHIFT / np.sqrt(2.0)))
    interval = measure_area_intervals(random.normal(0, 1, good), random.normal(SHIFT, 1, defective))["auroc"]
    return interval[0] <= truth <= interval[1]


def main() -> None:
    """Run the simulation and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--area-draws", type=int, default=100, help="Draws for the bootstrap, each with 500 resamples.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    random = np.random.default_rng(arguments.seed)
    result: dict[str, object] = {"draws": arguments.draws, "area_draws": arguments.area_draws, "seed": arguments.seed}

    print(f"conformal thresholds, {arguments.draws} draws of log-normal scores")
    print(f"{'good images':>12}{'promise':>10}{'mean rate':>11}{'above':>9}{'theory':>9}")
    for count, rate in ((60, 0.05), (199, 0.005), (200, 0.05), (1000, 0.01)):
        found = check_conformal(random, arguments.draws, count, rate)
        result[f"conformal {count} {rate}"] = found
        print(f"{count:>12}{rate:>10.3%}{found['mean']:>11.4%}{found['above']:>9.1%}{found['theory']:>9.1%}")

    print(f"\nClopper-Pearson intervals of a rate, {arguments.draws} draws; nominal {CONFIDENCE:.0%}")
    print(f"{'images':>12}{'true rate':>11}{'covered':>9}")
    for count, rate in ((60, 0.02), (60, 0.5), (200, 0.01), (1000, 0.005)):
        covered = cover(arguments.draws, partial(covers_rate, random, count, rate))
        result[f"rate {count} {rate}"] = covered
        print(f"{count:>12}{rate:>11.2%}{covered:>9.1%}")

    print(f"\nbootstrap intervals of the AUROC, {arguments.area_draws} draws; nominal {CONFIDENCE:.0%}")
    print(f"{'good':>12}{'defective':>11}{'covered':>9}")
    for good, defective in ((60, 40), (200, 100)):
        covered = cover(arguments.area_draws, partial(covers_auroc, random, good, defective))
        result[f"auroc {good} {defective}"] = covered
        print(f"{good:>12}{defective:>11}{covered:>9.1%}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
