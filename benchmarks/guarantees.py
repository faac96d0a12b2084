"""Are the promises of `onspect teach` and `onspect calibrate` kept? A simulation over many draws of images.

`teach`: extracts the features of all good pictures of a dataset once. Each draw fits a memory to a few of them,
chooses the threshold as `teach` does, and judges good pictures that were not drawn. The table compares the share of
these that is rejected with the promise. Copies of pictures are off. The small working size is the hard case, because
the metric of the memory is learned from few places; --size 320x256 is close to the default for these pictures.

`calibrate`: draws scores of good and defective parts from known distributions, so that the true rates are known. It
counts how often a promise was broken or an interval missed the truth. It takes about ten minutes of one core, most of
it for the bootstrap.

Prints tables and writes JSON. Needs onspect[cpu,train].

    python benchmarks/guarantees.py [--only teach|calibrate] [--draws 2000] [--pictures 10,20,50] [--new 1]
        [--data magnetic_tile] [--size 128x128] [--json result.json]
"""

from __future__ import annotations

import argparse
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import trapezoid
from scipy.stats import beta, gamma, lognorm, norm

from onspect.calibration.metrics.image import measure_area_intervals
from onspect.calibration.statistics.intervals import CONFIDENCE, rate_interval
from onspect.calibration.thresholds import Conformal, MaxF1, MaxFpr, MinRecall, Policy, Youden
from onspect.demo.parts import draw_part
from onspect.runtime.conformal import conformal
from onspect.runtime.dataset.good_images import load_good_images
from onspect.runtime.images.decode import quieten_opencv
from onspect.runtime.teaching.base_file import edit_graph, parse_base_file
from onspect.runtime.teaching.extract import Extractor
from onspect.runtime.teaching.fit import fit_memory
from onspect.runtime.teaching.memory import Features, score_images
from onspect.runtime.teaching.threshold import RATE
from onspect.training.features import make_base

Scores = NDArray[np.float64]
Coverage = dict[str, float]
ANYWHERE = (-math.inf, math.inf)

SIZES = ((20, 10), (60, 40), (240, 160))
"""Good and defective images."""

POLICIES = (
    MaxFpr(0.1),
    MaxFpr(0.02),
    Conformal(0.05),
    MinRecall(0.9),
    MinRecall(0.99),
    MaxF1(),
    Youden(),
)


DRAWN = 400
"""Good parts that are drawn where there is no dataset."""


@dataclass(frozen=True)
class Parts:
    """Distributions of scores of good and defective parts (scipy); a share `hard` of defects scores as `second`."""

    name: str
    good: Any
    defective: Any
    second: Any
    hard: float = 0.0

    def draw(self, random: np.random.Generator, good: int, defective: int) -> tuple[Scores, Scores]:
        """Return scores of the given numbers of good and defective parts."""
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
    """Return the mean true false-reject rate of conformal thresholds, and the share of draws above the promise.

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
    """Return the share of draws in which the interval of a rate of `count` images contained the true rate."""
    seen = random.binomial(count, rate, draws)
    intervals = {failures: rate_interval(int(failures), count) for failures in np.unique(seen)}
    return float(np.mean([intervals[failures][0] <= rate <= intervals[failures][1] for failures in seen]))


def check_intervals(random: np.random.Generator, draws: int, parts: Parts, good: int, defective: int) -> Coverage:
    """Return for AUROC, AUPR and each policy's threshold how often its interval contained the truth."""
    truths = find_truths(parts, defective / (good + defective))
    held: dict[str, list[bool]] = {name: [] for name in truths}
    for _ in range(draws):
        scores = parts.draw(random, good, defective)
        areas = measure_area_intervals(*scores)
        found = {"AUROC": areas["auroc"], "AUPR": areas["aupr"]}
        for policy in POLICIES:
            found[policy.describe()] = policy.interval(*scores) or ANYWHERE
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
    if isinstance(policy, MinRecall):
        return float(np.interp(-policy.rate, -recall, cuts))
    if isinstance(policy, MaxFpr | Conformal):
        return float(parts.good.isf(policy.rate))
    value = recall - fpr
    if isinstance(policy, MaxF1):
        value = 2 * share * recall / (share * recall + (1.0 - share) * fpr + share)
    return float(cuts[np.argmax(value)])


def extract_pool(data: Path | None, size: tuple[int, int], seed: int) -> Features:
    """Return the features of all good pictures of a dataset, or of drawn parts if data is None.

    size: width and height of the working size in pixels, multiples of 32.
    """
    width, height = size
    if data is None:
        drawn = [draw_part(np.random.default_rng([seed, number]), None, height)[0] for number in range(DRAWN)]
        images = np.repeat(np.stack(drawn)[..., None], 3, axis=3)
    else:
        paths = sorted(path for split in ("train", "val", "test") for path in (data / split / "good").iterdir())
        images = load_good_images(paths, lambda *_: (height, width), channels=3, any_size=True).images
    base = parse_base_file(Path("base.onnx"), make_base())
    return Extractor.open(edit_graph(base.graph, {}, input_shape=images.shape[1:])).extract(images)


def check_teaching(random: np.random.Generator, pool: Features, draws: int, count: int, new: int) -> dict[str, float]:
    """Return the share of new good pictures that memories of `count` pictures reject, each with its own threshold.

    Pictures are drawn without replacement, so those taught and the new ones are exchangeable, as the promise needs it.
    """
    rate = max(RATE, 1.0 / (count + 1))
    rejected = np.empty((draws, new), bool)
    for row in rejected:
        order = random.permutation(len(pool))[: count + new]
        fitted = fit_memory(pool.take(order[:count]), np.arange(count), seed=int(random.integers(2**31)))
        threshold = conformal(fitted.scores.astype(np.float64), rate)
        fresh = pool.take(order[count:])
        patches, vectors = fitted.metric.patches(fresh), fitted.vectors.astype(np.float32)
        row[:] = score_images(patches, vectors, fresh.shapes) >= threshold
    first = int(rejected[:, 0].sum())  # one picture a draw: the binomial interval needs independent trials
    low, high = rate_interval(first, draws)
    shares = rejected.mean(axis=1)
    return {
        "promise": rate,
        "draws": draws,
        "rejected": first,
        "low": low,
        "high": high,
        "mean": float(shares.mean()),
        "error": float(shares.std(ddof=1) / math.sqrt(draws)) if draws > 1 else math.nan,
    }


def report_teaching(arguments: argparse.Namespace, result: dict[str, object]) -> None:
    """Print and collect the table of `teach`."""
    data = arguments.data
    if data is None and (found := Path(os.environ.get("ONSPECT_DATA", "."), "magnetic_tile")).is_dir():
        data = found
    width, _, height = arguments.size.partition("x")
    pool = extract_pool(data, (int(width), int(height)), arguments.seed)
    name = "drawn parts" if data is None else data.name
    print(f"teach, {arguments.draws} draws from {len(pool)} good pictures of {name} at {arguments.size} pixels")
    print(f"{'pictures':>12}{'promise':>10}{'rejected':>11}{'rate':>9}{'95% interval':>20}{'mean':>9}{'+-':>8}")
    for count in map(int, arguments.pictures.split(",")):
        random = np.random.default_rng([arguments.seed, count])
        rates = check_teaching(random, pool, arguments.draws, count, arguments.new)
        result[f"teach {count}"] = rates | {"data": name, "size": arguments.size, "new": arguments.new}
        interval = f"{rates['low']:.2%} to {rates['high']:.2%}"
        print(
            f"{count:>12}{rates['promise']:>10.2%}{rates['rejected']:>11.0f}{rates['rejected'] / arguments.draws:>9.2%}"
            f"{interval:>20}{rates['mean']:>9.2%}{rates['error']:>8.2%}",
            flush=True,
        )
    print(f"mean: over {arguments.new} new pictures a draw, with its standard error over draws")


def report_calibration(draws: int, seed: int, result: dict[str, object]) -> None:
    """Print and collect the tables of `calibrate`."""
    random = np.random.default_rng(seed)
    print(f"conformal thresholds, {draws} draws of log-normal scores")
    print(f"{'good images':>12}{'promise':>10}{'mean rate':>11}{'above':>9}{'theory':>9}")
    for count, rate in ((60, 0.05), (199, 0.005), (200, 0.05), (1000, 0.01)):
        found = check_conformal(random, draws, count, rate)
        result[f"conformal {count} {rate}"] = found
        print(f"{count:>12}{rate:>10.3%}{found['mean']:>11.4%}{found['above']:>9.1%}{found['theory']:>9.1%}")

    print(f"\nClopper-Pearson intervals of a rate, {draws} draws; nominal {CONFIDENCE:.0%}")
    print(f"{'images':>12}{'true rate':>11}{'covered':>9}")
    for count, rate in ((60, 0.02), (60, 0.5), (200, 0.01), (1000, 0.005)):
        covered = check_rate(random, draws, count, rate)
        result[f"rate {count} {rate}"] = covered
        print(f"{count:>12}{rate:>11.2%}{covered:>9.1%}")

    least = CONFIDENCE - 2.0 * math.sqrt(CONFIDENCE * (1.0 - CONFIDENCE) / draws)
    print(f"\nintervals of areas and thresholds, {draws} draws; nominal {CONFIDENCE:.0%}, * below {least:.1%}")
    for number, parts in enumerate(PARTS):
        random = np.random.default_rng([seed, number])
        columns = {f"{good} + {bad}": check_intervals(random, draws, parts, good, bad) for good, bad in SIZES}
        result[f"intervals {parts.name}"] = columns
        heading = f"{parts.name} (* below {least:.1%})"
        print(f"\n{heading:<64}" + "".join(f"{size:>12}" for size in columns))
        for name in columns[f"{SIZES[0][0]} + {SIZES[0][1]}"]:
            shares = [column[name] for column in columns.values()]
            cells = [f"{share:.1%}{'*' if share < least else ' '}" for share in shares]
            print(f"{name:<64}" + "".join(f"{cell:>12}" for cell in cells), flush=True)


def main() -> None:
    """Run the simulations and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["teach", "calibrate"])
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pictures", default="10,20,50", help="good pictures taught, for each row of teach's table")
    parser.add_argument("--new", type=int, default=1, help="new good pictures that each taught memory judges")
    parser.add_argument("--data", type=Path, help="a dataset; magnetic_tile in $ONSPECT_DATA, else drawn parts")
    parser.add_argument("--size", default="128x128", help="working size, multiples of 32 pixels")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    quieten_opencv()
    result: dict[str, object] = {"draws": arguments.draws, "seed": arguments.seed}
    if arguments.only != "calibrate":
        report_teaching(arguments, result)
    if arguments.only != "teach":
        report_calibration(arguments.draws, arguments.seed, result)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
