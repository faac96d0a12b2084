"""Do the promises and intervals of `onspect calibrate` hold? A simulation over many draws of calibration images.

Draws scores of good and defective parts from known distributions, so that the true rates are known, and counts how
often a promise was broken or an interval missed the truth. Prints tables and writes JSON. Needs onspect[cpu,train], and
about ten minutes of one core, nearly all of it for the bootstrap.

    python benchmarks/guarantees.py [--draws 2000] [--json result.json]
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import trapezoid
from scipy.stats import beta, gamma, lognorm, norm

from onspect.calibration.claims import measure_area_intervals, measure_threshold_interval
from onspect.calibration.intervals import CONFIDENCE, rate_interval
from onspect.calibration.thresholds import Policy, conformal

Scores = NDArray[np.float64]
Coverage = dict[str, float]
ANYWHERE = (-math.inf, math.inf)

SIZES = ((20, 10), (60, 40), (240, 160))
"""Good and defective images."""

POLICIES = (
    Policy("max_fpr", 0.1),
    Policy("max_fpr", 0.02),
    Policy("conformal", 0.05),
    Policy("min_recall", 0.9),
    Policy("min_recall", 0.99),
    Policy("max_f1"),
    Policy("youden"),
)


@dataclass(frozen=True)
class Parts:
    """How good and defective parts score, as scipy's distributions; a share `hard` of the defects as `second`."""

    name: str
    good: Any
    defective: Any
    second: Any
    hard: float = 0.0

    def draw(self, random: np.random.Generator, good: int, defective: int) -> tuple[Scores, Scores]:
        """Return the scores of so many parts of each."""
        first = self.defective.rvs(defective, random_state=random)
        second = self.second.rvs(defective, random_state=random)
        hard = random.random(defective) < self.hard
        return self.good.rvs(good, random_state=random), np.where(hard, second, first)

    def trace(self) -> tuple[Scores, Scores, Scores]:
        """Return thresholds, ascending, and the shares of all good and of all defective parts that reach them."""
        levels = np.concatenate([np.geomspace(1e-7, 0.01, 4_000), np.linspace(0.01, 0.99, 20_001)])
        kinds = (self.good, self.defective, self.second)
        cuts = np.unique(np.concatenate([*(kind.ppf(levels) for kind in kinds), *(kind.isf(levels) for kind in kinds)]))
        caught = (1.0 - self.hard) * self.defective.sf(cuts) + self.hard * self.second.sf(cuts)
        return cuts, self.good.sf(cuts), caught


PARTS = (
    Parts("normal, AUROC 0.86", norm(), norm(1.5), norm(1.5)),
    Parts("normal, AUROC 0.99", norm(), norm(3.3), norm(3.3)),
    Parts("gamma, AUROC 0.94", gamma(1.0), gamma(4.0), gamma(4.0)),
    Parts("3 in 10 defects hard, AUROC 0.87", norm(), norm(4.0), norm(0.2), 0.3),
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


def check_intervals(random: np.random.Generator, draws: int, parts: Parts, good: int, defective: int) -> Coverage:
    """Return for AUROC, AUPR and each policy's threshold how often its interval held the truth."""
    truths = find_truths(parts, defective / (good + defective))
    held: dict[str, list[bool]] = {name: [] for name in truths}
    for _ in range(draws):
        scores = parts.draw(random, good, defective)
        areas = measure_area_intervals(*scores)
        found = {"AUROC": areas["auroc"], "AUPR": areas["aupr"]}
        for policy in POLICIES:
            found[policy.describe()] = measure_threshold_interval(policy, *scores).get("threshold", ANYWHERE)
        for name, (low, high) in found.items():
            held[name].append(low <= truths[name] <= high)
    return {name: float(np.mean(seen)) for name, seen in held.items()}


def find_truths(parts: Parts, share: float) -> dict[str, float]:
    """Return the areas over all parts, `share` of them defective, and the thresholds that policies would choose."""
    _, fpr, recall = parts.trace()
    precision = share * recall / np.maximum(share * recall + (1.0 - share) * fpr, 1e-300)
    areas = {"AUROC": float(-trapezoid(recall, fpr)), "AUPR": float(-trapezoid(precision, recall))}
    return areas | {policy.describe(): find_threshold(policy, parts, share) for policy in POLICIES}


def find_threshold(policy: Policy, parts: Parts, share: float) -> float:
    """Return the threshold that a policy would choose if it knew the distributions."""
    cuts, fpr, recall = parts.trace()
    if policy.name == "min_recall":
        return float(np.interp(-(policy.rate or 0.0), -recall, cuts))
    if policy.rate is not None:
        return float(parts.good.isf(policy.rate))
    value = recall - fpr
    if policy.name == "max_f1":
        value = 2 * share * recall / (share * recall + (1.0 - share) * fpr + share)
    return float(cuts[np.argmax(value)])


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

    least = CONFIDENCE - 2.0 * math.sqrt(CONFIDENCE * (1.0 - CONFIDENCE) / arguments.draws)
    print(
        f"\nintervals of areas and thresholds, {arguments.draws} draws; nominal {CONFIDENCE:.0%}, * below {least:.1%}"
    )
    for number, parts in enumerate(PARTS):
        random = np.random.default_rng([arguments.seed, number])
        covered = {f"{good} + {bad}": check_intervals(random, arguments.draws, parts, good, bad) for good, bad in SIZES}
        result[f"intervals {parts.name}"] = covered
        heading = f"{parts.name} (* below {least:.1%})"
        print(f"\n{heading:<64}" + "".join(f"{size:>12}" for size in covered))
        for name in covered[f"{SIZES[0][0]} + {SIZES[0][1]}"]:
            shares = [column[name] for column in covered.values()]
            cells = [f"{share:.1%}{'*' if share < least else ' '}" for share in shares]
            print(f"{name:<64}" + "".join(f"{cell:>12}" for cell in cells), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
