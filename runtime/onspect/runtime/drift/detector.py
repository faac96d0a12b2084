"""Drift: a sequential test whether the scores of a line still have the distribution of the calibration's good scores.

Each score gets a conformal p-value: its rank among the calibration's good scores *and* the earlier scores of the line,
with ties broken at random. As long as all scores have the same distribution, these p-values are independent and
uniform. This is theorem 8.1 of Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World", 2005. Ranks among
the calibration alone would not do. Sixty fixed scores differ from the line's true distribution by chance, and a test
without an end would find that difference and call it drift.

Shiryaev-Roberts statistics bet against the p-values: R = (1 + R) * f(p), with f of mean 1. Some bet on scores that
rose, some on scores that fell. R minus the number of parts is a martingale (Shin, Ramdas and Rinaldo, "E-detectors",
2022). These statistics find a change after many parts. They are slow to find one at the start, because the changed
scores soon are most of those that they are ranked among.

The first few hundred parts therefore have a second test. It is the likelihood ratio of the whole order of calibration
and line under proportional hazards. The method is that of Savage, "Contributions to the theory of rank order
statistics", 1956. It covers a change before the first part and at some parts after it. These ratios are martingales too
and share `START_CHANCE` * A from the start.

The alarm is raised when the sum of all reaches A. On an unchanged line, whatever its distribution, this happens within
N parts with a probability of at most N / A + START_CHANCE.

Defects are not drift. Only scores below a cut just under the threshold are used, on both sides of the comparison, so
rejected parts have no effect. The exception is a bet on the share of rejected parts. It wins if the share is hardly
possible on an unchanged line with one defective part in five. A failed lamp, for example, leaves no score below the
cut.
"""

from __future__ import annotations

import math
import random
import struct
from collections.abc import Sequence
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
"""Additional probability of a false alarm by the second test of the first parts."""

_START_PARTS = 512  # compared parts with the second test
_START_STEP = 32  # compared parts between two possible changes
_START_PAUSE = 8  # compared parts between two evaluations, which take a millisecond each
_START_REFERENCE = 500  # most scores of the calibration in the second test

DEFECTIVE_SHARE = 0.2
"""Largest assumed share of defective parts on an unchanged line."""

Direction = Literal["rose", "fell"]

_POWERS = (0.9, 0.75, 0.5, 0.25)  # f(p) = b * p ** (b - 1): from a slight to a strong excess of one tail
_HAZARDS = (0.25, 0.5, 0.7, 1.4, 2.0, 4.0)  # of the line's scores against the calibration's; below 1, they rose
_FINE_BITS = 9  # of a score's sign, exponent and mantissa: a resolution of 0.2%


@dataclass(frozen=True)
class Alarm:
    """A change of the scores."""

    direction: Direction
    """``rose`` or ``fell``."""

    began: int
    """Estimated number of the first changed part, from 0, with faults counted."""

    noticed: int
    """Number of the part that raised the alarm, from 0, with faults counted."""

    @property
    def danger(self) -> str:
        """The possible consequence, and what to do."""
        danger = "defects may pass unnoticed" if self.direction == "fell" else "good parts may be rejected"
        return f"{danger}: look at lamp, lens and camera, then 'onspect recalibrate' the model with good parts"

    def describe(self) -> str:
        """Return the alarm as text.

        Returns
        -------
        str
            One sentence without its full stop.
        """
        return (
            f"drift: the scores {self.direction}, from about part {self.began} on (noticed at part {self.noticed}); "
            f"{self.danger}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the alarm as a JSON object.

        Returns
        -------
        dict[str, Any]
            Every field under its name.
        """
        return asdict(self)


class Drift:
    """Watches the scores of a line one by one, in about a megabyte and ten microseconds for each part.

    Parameters
    ----------
    good_scores
        The good scores of the calibration.
    threshold
        The lowest score that does not pass as ``ok``.
    run_length
        A, as in `RUN_LENGTH`.

    Raises
    ------
    UncalibratedError
        If fewer than two good scores are below the threshold.
    """

    def __init__(self, good_scores: Sequence[float], threshold: float, *, run_length: float = RUN_LENGTH) -> None:
        below = sorted(score for score in good_scores if score < threshold)
        if len(below) < 2:
            raise UncalibratedError(
                f"{len(below)} of the calibration's {len(good_scores)} good scores are below the threshold, and drift "
                f"needs at least 2: run 'onspect calibrate' with more good images"
            )
        self.cut = below.pop()  # given the highest score, lower ones of calibration and line have one distribution
        """Scores below this value are compared."""
        self.reference = len(below)
        """Number of the calibration's good scores that are compared."""
        self.parts = 0
        """Number of parts, with faults."""
        self.compared = 0
        """Number of parts whose scores were compared."""
        self.alarm: Alarm | None = None
        """The alarm, None before it."""
        self._run_length = run_length
        self._random = random.Random(0)  # noqa: S311 - breaks ties; the same stream gives the same answer again
        self._ranks = _Ranks()
        self._start: _Start | None = _Start(below, self._random)
        for score in below:
            self._ranks.add(score)
        self._rose = [_Bet() for _ in _POWERS]
        self._fell = [_Bet() for _ in _POWERS]
        self._rejected = _Bet()
        self._bets = [*self._rose, *self._fell, self._rejected]
        self._rejected_share = 1.0 - (1.0 - DEFECTIVE_SHARE) * len(below) / (len(good_scores) + 1)

    def update(self, score: float | None) -> Alarm | None:
        """Take the score of the next part.

        Parameters
        ----------
        score
            The score, None for a fault.

        Returns
        -------
        Alarm or None
            The alarm if this part raises it, otherwise None.
        """
        part = self.parts
        self.parts += 1
        if score is None or self.alarm is not None:
            return None
        self._bet(score, part)
        start = 0.0 if self._start is None else START_CHANCE * self._run_length * self._start.evidence
        running = math.fsum(bet.statistic for bet in self._bets) / (2 * len(_POWERS) + 1)
        if start + running < self._run_length:
            return None
        if self._start is not None and start > running:
            self.alarm = Alarm(*self._start.find_change(), part)
        else:
            loudest = max(self._bets, key=lambda bet: bet.statistic)
            self.alarm = Alarm("fell" if loudest in self._fell else "rose", loudest.began, part)
        return self.alarm

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
                self._start = None  # from here on the bets are as sensitive
        for bet, power in zip(self._rose, _POWERS, strict=True):
            bet.win(power * high ** (power - 1.0), part)
        low = max(1.0 - high, 1e-12)
        for bet, power in zip(self._fell, _POWERS, strict=True):
            bet.win(power * low ** (power - 1.0), part)


class _Bet:
    """One Shiryaev-Roberts statistic, and the most likely part of its change.

    That part is the one from which its factors are the strongest evidence of a change (CUSUM's start).
    """

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

    At most `_START_REFERENCE` of the calibration's scores are used, chosen at random.
    """

    def __init__(self, scores: Sequence[float], chance: random.Random) -> None:
        self.evidence = 0.0
        """Mean of the ratios, half of it for a change before the first part; 0 between two evaluations."""
        self._chance = chance
        self._scores = np.sort(chance.sample(list(scores), min(len(scores), _START_REFERENCE)))
        self._order = np.full(len(self._scores), -1)  # index of the compared part of each score; -1: calibration
        self._parts: list[int] = []

    def take(self, score: float, part: int) -> None:
        """Take the next score of the line."""
        first, last = (int(np.searchsorted(self._scores, score, side=side)) for side in ("left", "right"))
        place = self._chance.randint(first, last)  # equal scores are ordered at random
        self._scores = np.insert(self._scores, place, score)
        self._order = np.insert(self._order, place, len(self._parts))
        self._parts.append(part)
        self.evidence = 0.0 if len(self._parts) % _START_PAUSE else self._look()

    def _look(self) -> float:
        first, *others = (self._compare(start) for start in range(0, _START_PARTS, _START_STEP))
        return float(np.exp(first).mean() + np.exp(others).mean()) / 2.0

    def find_change(self) -> tuple[Direction, int]:
        """Return whether scores rose or fell, and the most likely part of the change."""
        ratios = np.array([self._compare(start) for start in range(len(self._parts))])
        start, hazard = np.unravel_index(np.argmax(ratios), ratios.shape)
        return "rose" if _HAZARDS[hazard] < 1.0 else "fell", self._parts[start]

    def _compare(self, start: int) -> NDArray[np.float64]:
        """Return the log likelihood ratio of each hazard if it applies to the compared parts from `start` on only."""
        changed = self._order >= start
        at_risk = np.arange(len(changed), 0, -1)
        changed_at_risk = np.cumsum(changed[::-1])[::-1]
        hazards = np.array(_HAZARDS)[:, None]
        weights = np.log1p((hazards - 1.0) * changed_at_risk / at_risk)
        return np.asarray(np.log(hazards[:, 0]) * changed.sum() - weights.sum(axis=1))


class _Ranks:
    """Counts of scores on a fixed, fine scale, so that ranks among any number of scores take bounded memory.

    The scale consists of the leading bits of the score as float32. It is fixed in advance, which keeps the p-values
    exact.
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
        """Return the p-value of a score, which is small for a high score.

        The p-value and chance are above 0 and at most 1.
        """
        row, column = _find_cell(score)
        above = int(self._rows[row + 1 :].sum()) + int(self._counts[row, column + 1 :].sum())
        alike = int(self._counts[row, column])
        return (above + chance * (alike + 1)) / (self._total + 1)


def _find_cell(score: float) -> tuple[int, int]:
    """Return the leading 18 bits of a score as two numbers of 9 bits, in the order of the scores."""
    (bits,) = struct.unpack("<I", struct.pack("<f", score))
    ordered = ~bits & 0xFFFFFFFF if bits & 0x80000000 else bits | 0x80000000
    return ordered >> (32 - _FINE_BITS), ordered >> (32 - 2 * _FINE_BITS) & ((1 << _FINE_BITS) - 1)


def make_drift(info: ModelInfo) -> Drift:
    """Return the drift watch of a calibrated model.

    Parameters
    ----------
    info
        Metadata of the model file.

    Returns
    -------
    Drift
        A watch without any score of the line.

    Raises
    ------
    UncalibratedError
        If the file has no threshold or no good scores, or too few of them are below it.
    """
    if info.threshold is None or info.calibration is None or not info.calibration.good_scores:
        raise UncalibratedError(
            f"the model {info.name!r} has no good scores to compare a line's scores with: "
            "run 'onspect calibrate' on it first"
        )
    cuts = (info.threshold.score, info.threshold.review)
    return Drift(info.calibration.good_scores, min(cut for cut in cuts if cut is not None))
