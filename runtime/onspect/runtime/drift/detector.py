"""Drift: a sequential test of whether a line's scores still come as its calibration's good scores did.

Each score gets a conformal p-value: its rank among the calibration's good scores *and* the line's scores before it,
ties broken at random. As long as all of them come alike, whatever their distribution, these p-values are independent
and uniform (Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World", 2005, theorem 8.1). Ranking against
the calibration alone would not do: sixty fixed scores differ from the line's true distribution by chance, and a test
that runs for ever would find that difference and call it drift.

The p-values are bet against by Shiryaev-Roberts statistics, R = (1 + R) * f(p), with f of mean 1: a few for scores
that rose, a few for scores that fell. R minus the number of parts is a martingale (Shin, Ramdas and Rinaldo,
"E-detectors", 2022). They find a change once many parts have gone before, and are slow to see one at the start, since
the changed scores are soon most of those ranked against. So for the first few hundred parts there is also the
likelihood ratio of the whole order of calibration and line under proportional hazards (Savage, "Contributions to the
theory of rank order statistics", 1956), for a change before the first part and at some parts after it: martingales too,
which share `START_CHANCE` * A among them from the outset. Where all together reach A, the alarm is raised: on an
unchanged line, whatever its distribution, within N parts with a probability of at most N / A + START_CHANCE.

Defects are not drift. Only scores below a cut just under the threshold take part, on both sides of the comparison, so
that rejected parts have no say; unless there are so many that an unchanged line with one part in five defective would
hardly have them, which is a bet of its own: a lamp that failed leaves no score below the cut.
"""

from __future__ import annotations

import math
import random
import struct
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from onspect.runtime.errors import UncalibratedError

if TYPE_CHECKING:
    from onspect.runtime.model.schema import ModelInfo

RUN_LENGTH = 1_000_000
"""A: an unchanged line of N parts has a false alarm with a probability of at most N / A + `START_CHANCE`."""

START_CHANCE = 0.001
"""The probability of a false alarm that the closer look at the first parts adds."""

_START_PARTS = 512  # compared parts that are looked at more closely
_START_STEP = 32  # from one such part to the next at which a change may have come
_START_PAUSE = 8  # parts from one look at them to the next, each of which takes a millisecond
_START_REFERENCE = 500  # scores of the calibration that take part in it, at most

DEFECTIVE_SHARE = 0.2
"""The share of defective parts that an unchanged line is believed to have at most."""

Direction = Literal["rose", "fell"]

_POWERS = (0.9, 0.75, 0.5, 0.25)  # f(p) = b * p ** (b - 1): from a slight to a strong excess of one tail
_HAZARDS = (0.25, 0.5, 0.7, 1.4, 2.0, 4.0)  # of the line's scores against the calibration's; below 1, they rose
_FINE_BITS = 9  # of a score's sign, exponent and mantissa: scores are told apart to 0.2%


@dataclass(frozen=True)
class Alarm:
    """Scores that no longer come as the calibration's: where it began (an estimate) and where it was noticed.

    began, noticed: parts, from 0, faults counted.
    """

    direction: Direction
    began: int
    noticed: int

    @property
    def danger(self) -> str:
        """What it may lead to, and what to do."""
        danger = "defects may pass unnoticed" if self.direction == "fell" else "good parts may be rejected"
        return f"{danger}: look at lamp, lens and camera, then 'onspect recalibrate' the model with good parts"

    def describe(self) -> str:
        """Return the alarm in a sentence."""
        return (
            f"drift: the scores {self.direction}, from about part {self.began} on (noticed at part {self.noticed}); "
            f"{self.danger}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object."""
        return asdict(self)


class Drift:
    """Watches the scores of a line, one by one, in about a megabyte and some ten microseconds a part.

    good_scores are the calibration's, threshold is the lowest score that does not pass as ``ok``, run_length is as
    `RUN_LENGTH`. Raises UncalibratedError where fewer than two good scores lie below the threshold.
    """

    def __init__(self, good_scores: Sequence[float], threshold: float, *, run_length: float = RUN_LENGTH) -> None:
        below = sorted(score for score in good_scores if score < threshold)
        if len(below) < 2:
            raise UncalibratedError(
                f"{len(below)} of the calibration's {len(good_scores)} good scores are below the threshold, and drift "
                f"needs at least 2: run 'onspect calibrate' with more good images"
            )
        self.cut = below.pop()  # given the highest one, those below it are still drawn as the line's below it are
        """Scores below this take part."""
        self.reference = len(below)
        """How many good scores of the calibration take part."""
        self.parts = 0
        """Parts seen, faults counted."""
        self.compared = 0
        """Parts that took part."""
        self.alarm: Alarm | None = None
        """The alarm, once there was one."""
        self._run_length = run_length
        self._random = random.Random(0)  # noqa: S311 - breaks ties; the same stream gives the same answer again
        self._ranks = _Ranks()
        self._start: _Start | None = _Start(below, self._random)
        for score in below:
            self._ranks.add(score)
        self._rose = [_Bet() for _ in _POWERS]
        self._fell = [_Bet() for _ in _POWERS]
        self._rejected = _Bet()
        self._rejected_share = 1.0 - (1.0 - DEFECTIVE_SHARE) * len(below) / (len(good_scores) + 1)

    def update(self, score: float | None) -> Alarm | None:
        """Take the next part's score (None for a fault); returns the alarm at the part that raises it, else None."""
        part = self.parts
        self.parts += 1
        if score is None or self.alarm is not None:
            return None
        self._bet(score, part)
        start = 0.0 if self._start is None else START_CHANCE * self._run_length * self._start.evidence
        running = math.fsum(bet.statistic for bet in self._bets()) / (2 * len(_POWERS) + 1)
        if start + running < self._run_length:
            return None
        if self._start is not None and start > running:
            self.alarm = Alarm(*self._start.find_change(), part)
        else:
            loudest = max(self._bets(), key=lambda bet: bet.statistic)
            self.alarm = Alarm("fell" if loudest in self._fell else "rose", loudest.began, part)
        return self.alarm

    def _bets(self) -> Iterator[_Bet]:
        yield from self._rose
        yield from self._fell
        yield self._rejected

    def _bet(self, score: float, part: int) -> None:
        share = self._rejected_share
        if score >= self.cut:
            self._rejected.win((1.0 + share) / (2.0 * share), part)
            return
        self._rejected.win(0.5, part)
        high = self._ranks.place(score, 1.0 - self._random.random())
        self._ranks.add(score)
        self.compared += 1
        if self._start is not None:
            self._start.take(score, part)
            if self.compared == _START_PARTS:
                self._start = None  # from here on the bets see as much
        for bet, power in zip(self._rose, _POWERS, strict=True):
            bet.win(power * high ** (power - 1.0), part)
        low = max(1.0 - high, 1e-12)
        for bet, power in zip(self._fell, _POWERS, strict=True):
            bet.win(power * low ** (power - 1.0), part)


class _Bet:
    """One Shiryaev-Roberts statistic, and from which part on its factors speak most for a change (CUSUM's start)."""

    __slots__ = ("_sum", "began", "statistic")

    def __init__(self) -> None:
        self.statistic = 0.0
        self.began = 0
        self._sum = 0.0

    def win(self, factor: float, part: int) -> None:
        self.statistic = (1.0 + self.statistic) * factor
        if self._sum <= 0.0:
            self._sum = 0.0
            self.began = part
        self._sum += math.log(factor)


class _Start:
    """Likelihood ratios of the order of the calibration's and the line's scores, for changes among the first parts.

    scores are the calibration's; only so many of them take part as `_START_REFERENCE` says, chosen at random.
    """

    def __init__(self, scores: Sequence[float], chance: random.Random) -> None:
        self.evidence = 0.0
        """The mean of the ratios, half of it for a change before the first part; 0 between two looks at them."""
        self._chance = chance
        self._scores = np.sort(chance.sample(list(scores), min(len(scores), _START_REFERENCE)))
        self._order = np.full(len(self._scores), -1)  # which of the compared parts each score is of; -1: calibration
        self._parts: list[int] = []

    def take(self, score: float, part: int) -> None:
        """Take the line's next score."""
        first, last = (int(np.searchsorted(self._scores, score, side=side)) for side in ("left", "right"))
        place = self._chance.randint(first, last)  # among equal scores each order is as likely
        self._scores = np.insert(self._scores, place, score)
        self._order = np.insert(self._order, place, len(self._parts))
        self._parts.append(part)
        self.evidence = 0.0 if len(self._parts) % _START_PAUSE else self._look()

    def _look(self) -> float:
        first, *others = (self._compare(start) for start in range(0, _START_PARTS, _START_STEP))
        return float(np.exp(first).mean() + np.exp(others).mean()) / 2.0

    def find_change(self) -> tuple[Direction, int]:
        """Return whether scores rose or fell, and the part from which on that is most likely."""
        ratios = np.array([self._compare(start) for start in range(len(self._parts))])
        start, hazard = np.unravel_index(np.argmax(ratios), ratios.shape)
        return "rose" if _HAZARDS[hazard] < 1.0 else "fell", self._parts[start]

    def _compare(self, start: int) -> NDArray[np.float64]:
        """Return the log likelihood ratio for each hazard, where the compared parts from `start` on have it alone."""
        changed = self._order >= start
        at_risk = np.arange(len(changed), 0, -1)
        changed_at_risk = np.cumsum(changed[::-1])[::-1]
        hazards = np.array(_HAZARDS)[:, None]
        weights = np.log1p((hazards - 1.0) * changed_at_risk / at_risk)
        return np.asarray(np.log(hazards[:, 0]) * changed.sum() - weights.sum(axis=1))


class _Ranks:
    """Counts of scores on a fixed, fine scale, so that ranks among any number of them take bounded memory.

    The scale is fixed beforehand (the leading bits of the score as float32), which keeps the p-values exact.
    """

    def __init__(self) -> None:
        width = 1 << _FINE_BITS
        self._counts = np.zeros((width, width), np.uint32)
        self._rows = np.zeros(width, np.int64)
        self._total = 0

    def add(self, score: float) -> None:
        row, column = _find_cell(score)
        self._counts[row, column] += 1
        self._rows[row] += 1
        self._total += 1

    def place(self, score: float, chance: float) -> float:
        """Return a score's p-value: small where it is high. It and chance are above 0 and at most 1."""
        row, column = _find_cell(score)
        above = int(self._rows[row + 1 :].sum()) + int(self._counts[row, column + 1 :].sum())
        alike = int(self._counts[row, column])
        return (above + chance * (alike + 1)) / (self._total + 1)


def _find_cell(score: float) -> tuple[int, int]:
    """Return the leading 18 bits of a score, as two numbers of 9, in the order of the scores."""
    (bits,) = struct.unpack("<I", struct.pack("<f", score))
    ordered = ~bits & 0xFFFFFFFF if bits & 0x80000000 else bits | 0x80000000
    return ordered >> (32 - _FINE_BITS), ordered >> (32 - 2 * _FINE_BITS) & ((1 << _FINE_BITS) - 1)


def make_drift(info: ModelInfo) -> Drift:
    """Return the drift watch for a calibrated model; raises UncalibratedError where its file holds no good scores."""
    if info.threshold is None or info.calibration is None or not info.calibration.good_scores:
        raise UncalibratedError(
            f"the model {info.name!r} has no good scores to compare a line's scores with: "
            "run 'onspect calibrate' on it first"
        )
    cuts = (info.threshold.score, info.threshold.review)
    return Drift(info.calibration.good_scores, min(cut for cut in cuts if cut is not None))
