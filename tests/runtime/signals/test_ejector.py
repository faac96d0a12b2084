from __future__ import annotations

import random

import pytest

from onspect.runtime.judgement import Judgement
from onspect.runtime.signals.ejector import Ejector, EjectorRule


@pytest.mark.parametrize("behind", [1, 2, 7])
def test_by_parts_each_part_has_the_coil_when_it_is_at_the_gate(behind: int) -> None:
    """Against a plain list of verdicts: the coil at trigger k belongs to part k - behind, for every part."""
    choose = random.Random(behind)
    names: tuple[Judgement | None, ...] = ("ok", "ok", "ng", "fault", "review", None)
    truth: list[Judgement | None] = [choose.choice(names) for _ in range(500)]
    ejector = Ejector(EjectorRule(parts=behind))
    seen = []
    for number, verdict in enumerate(truth):
        ejector.enter(number, float(number))
        seen.append(ejector.step(float(number)))
        if verdict is not None:  # None: the frame was dropped, and no verdict ever comes
            ejector.decide(number, verdict, number + 0.1)
    expected = [False] * behind + [verdict in ("ng", "fault", None) for verdict in truth[:-behind]]
    assert seen == expected


def test_by_parts_a_gate_at_the_camera_follows_the_verdict() -> None:
    """With parts = 0 the coil is set with the verdict, and cleared by the next part."""
    ejector = Ejector(EjectorRule(parts=0))
    ejector.enter(1, 0.0)
    assert not ejector.step(0.0)
    ejector.decide(1, "ng", 0.1)
    assert ejector.step(0.1)
    ejector.enter(2, 1.0)
    assert not ejector.step(1.0)


def test_by_time_the_coil_is_set_from_the_delay_for_the_pulse() -> None:
    """The pulse begins exactly at the delay after the trigger, whenever the verdict came."""
    ejector = Ejector(EjectorRule(seconds=2.0, pulse=0.25))
    ejector.enter(1, 10.0)
    ejector.decide(1, "ng", 11.9)
    assert ejector.deadline == 12.0
    assert [ejector.step(time) for time in (11.99, 12.0, 12.24, 12.25)] == [False, True, True, False]
    assert (ejector.ejected, ejector.missed, ejector.deadline) == (1, 0, None)


def test_by_time_pulses_of_neighbours_join() -> None:
    """Two bad parts behind one another keep the coil set until the later pulse ends; a good one between sets none."""
    ejector = Ejector(EjectorRule(seconds=1.0, pulse=0.5))
    for number, (time, verdict) in enumerate([(0.0, "ng"), (0.1, "ok"), (0.25, "ng"), (2.0, "ok")]):
        ejector.enter(number, time)
        ejector.decide(number, verdict, time)  # type: ignore[arg-type]
    assert [ejector.step(time) for time in (1.0, 1.2, 1.3, 1.6, 1.75, 3.1)] == [True, True, True, True, False, False]
    assert ejector.ejected == 2


def test_a_part_without_a_verdict_at_the_gate_is_a_fault() -> None:
    """It is rejected, and named, so that a verdict that comes later is not believed."""
    ejector = Ejector(EjectorRule(seconds=1.0))
    ejector.enter(5, 0.0)
    assert ejector.step(1.0)
    assert ejector.overtaken == 5


@pytest.mark.parametrize(
    ("rejects", "rejected"), [(("ng",), [True, False, False]), (("ng", "review"), [True, False, True])]
)
def test_what_is_rejected_can_be_chosen(rejects: tuple[Judgement, ...], rejected: list[bool]) -> None:
    """Faults and parts for review are rejected where the rule says so."""
    ejector = Ejector(EjectorRule(parts=1, rejects=rejects))
    verdicts: tuple[Judgement, ...] = ("ng", "fault", "review")
    seen = []
    for number, verdict in enumerate([*verdicts, "ok"]):
        ejector.enter(number, 0.0)
        seen.append(ejector.step(0.0))
        ejector.decide(number, verdict, 0.0)  # type: ignore[arg-type]
    assert seen[1:] == rejected


def test_a_part_that_passes_while_the_connection_is_broken_is_counted() -> None:
    """A reject that could not be told is missed; one that is due later is not."""
    ejector = Ejector(EjectorRule(seconds=1.0, pulse=0.1))
    for number, time in enumerate((0.0, 5.0)):
        ejector.enter(number, time)
        ejector.decide(number, "ng", time)
    ejector.step(1.05, connected=False)
    assert ejector.missed == 1
    assert ejector.step(6.0)
    assert (ejector.missed, ejector.ejected) == (1, 1)


def test_after_a_reset_every_part_on_the_belt_is_rejected() -> None:
    """The belt may have been moved, so no part that was on it may pass; new parts count again."""
    ejector = Ejector(EjectorRule(parts=2))
    for number in (1, 2):
        ejector.enter(number, 0.0)
        ejector.decide(number, "ok", 0.0)
    ejector.distrust()
    seen = []
    for number in (3, 4, 5):
        ejector.enter(number, 0.0)
        seen.append(ejector.step(0.0))
        ejector.decide(number, "ok", 0.0)
    assert seen == [True, True, False]
