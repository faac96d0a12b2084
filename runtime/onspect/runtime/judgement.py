"""The verdicts: their names, meanings and order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Judgement = Literal["ok", "ng", "review", "fault"]


@dataclass(frozen=True)
class JudgementFacts:
    """The meaning of one verdict for the part."""

    meaning: str
    """Text for people."""

    severity: int
    """The frame with the highest severity decides on a part with several frames."""

    rejected: bool
    """Whether the part must leave the line."""


JUDGEMENTS: dict[Judgement, JudgementFacts] = {
    "ok": JudgementFacts("the part passes", severity=0, rejected=False),
    "ng": JudgementFacts("the part is rejected", severity=3, rejected=True),
    "review": JudgementFacts("a person decides", severity=1, rejected=False),
    "fault": JudgementFacts("the part could not be judged", severity=2, rejected=True),
}
"""Every verdict, in the order in which they are listed and counted."""

WORST_FIRST: tuple[Judgement, ...] = tuple(sorted(JUDGEMENTS, key=lambda name: -JUDGEMENTS[name].severity))
"""Every verdict, the one with the highest severity first."""
