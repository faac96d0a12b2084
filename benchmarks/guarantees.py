"""Do the promises and intervals of `onspect calibrate` hold? A simulation over many draws of calibration images.

Draws scores of good and defective parts from known distributions, so that the true rates are known, and counts how
often a promise was broken or an interval missed the truth. Prints tables and writes JSON. Needs onspect[cpu,train], and
about five minutes of one core, nearly all of it for the bootstrap.

    python benchmarks/guarantees.py [--draws 2000] [--json result.json]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import trapezoid
from scipy.stats import beta, lognorm, norm

from onspect.calibration.claims import measure_area_intervals, measure_threshold_interval
from onspect.calibration.intervals import CONFIDENCE, Interval, rate_interval
from onspect.calibration.thresholds import Policy, conformal

SHIFT = 1.5
"""Distance of the defective parts' normal scores from the good ones'."""

GRID = np.linspace(-8.0, 10.0, 20_001)
SIZES = ((60, 40), (240, 160))
POLICIES = (
    Policy("max_fpr", 0.1),
    Policy("max_fpr", 0.02),
    Policy("min_recall", 0.9),
    Policy("max_f1"),
    Policy("youden"),
)


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


def check_rate(random: np.random.Generator, draws: int, count: int, rate: float) -> float:
    """Return in which share of draws the interval of a rate, seen on `count` images, held the true one."""
    seen = random.binomial(count, rate, draws)
    intervals = {failures: rate_interval(int(failures), count) for failures in np.unique(seen)}
    return float(np.mean([intervals[failures][0] <= rate <= intervals[failures][1] for failures in seen]))


def check_bootstrap(random: np.random.Generator, draws: int, good: int, defective: int) -> dict[str, dict[str, float]]:
    """Return for AUROC, AUPR and each policy's threshold the truth and how often its interval held it."""
    share = defective / (good + defective)
    truths = {"AUROC": float(norm.cdf(SHIFT / np.sqrt(2.0))), "AUPR": find_true_aupr(share)}
    truths |= {policy.describe(): find_true_threshold(policy, share) for policy in POLICIES}
    held: dict[str, list[bool]] = {name: [] for name in truths}
    for _ in range(draws):
        scores = random.normal(0, 1, good), random.normal(SHIFT, 1, defective)
        areas = measure_area_intervals(*scores)
        found = {"AUROC": areas["auroc"], "AUPR": areas["aupr"]}
        found |= {policy.describe(): measure_threshold_interval(policy, *scores)["threshold"] for policy in POLICIES}
        for name, interval in found.items():
            held[name].append(holds(interval, truths[name]))
    return {name: {"truth": truths[name], "covered": float(np.mean(held[name]))} for name in truths}


def holds(interval: Interval, truth: float) -> bool:
    """Tell whether an interval holds the truth."""
    return interval[0] <= truth <= interval[1]


def find_true_aupr(share: float) -> float:
    """Return the average precision over all parts, `share` of them defective."""
    recall, fpr = norm.sf(GRID - SHIFT), norm.sf(GRID)
    precision = share * recall / (share * recall + (1.0 - share) * fpr)
    return float(-trapezoid(precision, recall))


def find_true_threshold(policy: Policy, share: float) -> float:
    """Return the threshold that a policy would choose if it knew the distributions."""
    recall, fpr = norm.sf(GRID - SHIFT), norm.sf(GRID)
    if policy.name == "max_fpr":
        return float(norm.isf(policy.rate))
    if policy.name == "min_recall":
        return float(SHIFT + norm.isf(policy.rate))
    value: NDArray[np.float64] = recall - fpr
    if policy.name == "max_f1":
        value = 2 * share * recall / (share * recall + (1.0 - share) * fpr + share)
    return float(GRID[np.argmax(value)])


def main() -> None:
    """Run the simulation and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    random = np.random.default_rng(arguments.seed)
    result: dict[str, object] = {"draws": arguments.draws, "seed": arguments.seed}

    print(f"conformal thresholds, {arguments.draws} draws of log-normal scores")
    print(f"{'good images':>12}{'promise':>10}{'mean rate':>11}{'above':>9}{'theory':>9}")
    for count, rate in ((60, 0.05), (199, 0.005), (200, 0.05), (1000, 0.01)):
        found = check_conformal(random, arguments.draws, count, rate)
        result[f"conformal {count} {rate}"] = found
        print(f"{count:>12}{rate:>10.3%}{found['mean']:>11.4%}{found['above']:>9.1%}{found['theory']:>9.1%}")

    print(f"\nClopper-Pearson intervals of a rate, {arguments.draws} draws; nominal {CONFIDENCE:.0%}")
    print(f"{'images':>12}{'true rate':>11}{'covered':>9}")
    for count, rate in ((60, 0.02), (60, 0.5), (200, 0.01), (1000, 0.005)):
        covered = check_rate(random, arguments.draws, count, rate)
        result[f"rate {count} {rate}"] = covered
        print(f"{count:>12}{rate:>11.2%}{covered:>9.1%}")

    print(f"\nbootstrap intervals, {arguments.draws} draws of normal scores; nominal {CONFIDENCE:.0%}")
    tables = {sizes: check_bootstrap(random, arguments.draws, *sizes) for sizes in SIZES}
    result |= {f"bootstrap {good} {defective}": table for (good, defective), table in tables.items()}
    heads = [f"{good} good, {defective} defective" for good, defective in SIZES]
    print(f"{'interval of':<56}{'truth':>8}{heads[0]:>24}{heads[1]:>24}")
    for name in tables[SIZES[0]]:
        first, second = (tables[sizes][name] for sizes in SIZES)
        print(f"{name:<56}{first['truth']:>8.3f}{first['covered']:>24.1%}{second['covered']:>24.1%}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
