"""The state machine of presence: one decision for each part, for any motion of the belt."""

from __future__ import annotations

from collections import Counter

import pytest

from onspect.runtime.presence.blobs import Blob, Side
from onspect.runtime.presence.tracker import Decision, Tracker

WIDTH, SIDE = 300.0, 60.0


def blob(x: float, side: float = SIDE) -> Blob | None:
    """Return the blob of a part with its middle at x, cut by the view's edges; None if it is out of view."""
    left, right = max(0.0, x - side / 2), min(WIDTH, x + side / 2)
    if right - left < 2.0:
        return None
    sides: dict[Side, bool] = {"left": x - side / 2 <= 0, "right": x + side / 2 >= WIDTH}
    cut = frozenset(one for one, touches in sides.items() if touches)
    return Blob((left + right) / 2, 50.0, left, 20.0, right, 20.0 + SIDE, (right - left) * SIDE, cut)


def merge(places: list[float]) -> list[Blob]:
    """Return the blobs of parts at these places; parts that touch are one blob."""
    blobs: list[Blob] = []
    for one in sorted((found for x in places if (found := blob(x)) is not None), key=lambda found: found.left):
        if blobs and one.left <= blobs[-1].right + 1.0:
            last = blobs.pop()
            area = last.area + one.area
            x = (last.x * last.area + one.x * one.area) / area
            blobs.append(Blob(x, 50.0, last.left, 20.0, one.right, 20.0 + SIDE, area, last.cut | one.cut))
        else:
            blobs.append(one)
    return blobs


class Run:
    """A tracker with the frames that it got; frame tokens are frame numbers."""

    def __init__(self, **known: object) -> None:
        self.tracker: Tracker[int] = Tracker(**known)  # type: ignore[arg-type]  # given by the tests
        self.decisions: list[tuple[int, Decision[int]]] = []
        self.number = 0

    def frame(self, places: list[float], sharpness: float = 1.0, *, pause: int = 1) -> list[Decision[int]]:
        """Show a frame; pause: frames since the one before."""
        self.number += pause
        made = self.tracker.update(merge(places), self.number / 30.0, self.number, lambda _: (True, sharpness))
        self.decisions += [(self.number, one) for one in made]
        return made

    def move(self, starts: list[float], steps: list[float]) -> float:
        """Move parts by steps, frame by frame; return the sum."""
        total = 0.0
        for step in steps:
            total += step
            self.frame([start + total for start in starts])
        return total

    def end(self) -> None:
        self.decisions += [(self.number, one) for one in self.tracker.flush()]

    @property
    def parts(self) -> list[int]:
        return [one.part for _, one in self.decisions]

    @property
    def reasons(self) -> dict[int, str]:
        return {one.part: one.reason for _, one in self.decisions if one.reason}


def test_each_part_is_decided_once_and_nothing_between_parts() -> None:
    """Twenty parts give twenty decisions, in order, each in a frame that shows its part whole."""
    run = Run()
    run.move([-40.0 - 130.0 * part for part in range(20)], [8.0] * 400)
    run.end()
    assert run.parts == list(range(1, 21))
    assert not run.reasons
    assert all(not one.blob.cut for _, one in run.decisions)


def test_states_follow_one_another() -> None:
    """A part enters, is present, leaves, and is absent."""
    run, states = Run(), []
    for step in range(60):
        run.frame([-40.0 + 8.0 * step])
        states.append(run.tracker.tracks[0].state if run.tracker.tracks else "absent")
    assert list(dict.fromkeys(states)) == ["absent", "entering", "present", "leaving"]
    assert states[-1] == "absent"


def test_the_first_parts_wait_for_their_sharpest_frame() -> None:
    """Until the usual sharpness is known, a part is decided when it leaves, by its sharpest whole frame."""
    run = Run()
    for step in range(60):
        x = -40.0 + 8.0 * step
        run.frame([x], sharpness=10.0 - abs(x - 160.0) / 50.0)
    ((decided_at, decision),) = run.decisions
    assert decision.frame < decided_at
    assert abs(decision.blob.x - 160.0) <= 4.0


def test_a_part_as_sharp_as_usual_is_decided_at_once() -> None:
    """With the usual sharpness known, the first whole sharp frame decides; a blurred one does not."""
    run = Run(sharpness=5.0)
    for step in range(60):
        x = -40.0 + 8.0 * step
        run.frame([x], sharpness=2.0 if x < 120.0 else 5.0)
    ((decided_at, decision),) = run.decisions
    assert decision.frame == decided_at
    assert 120.0 <= decision.blob.x < 128.0


def test_a_blurred_part_is_decided_by_its_best_frame() -> None:
    """A part that never becomes sharp is decided when it leaves."""
    run = Run(sharpness=5.0)
    for step in range(60):
        run.frame([-40.0 + 8.0 * step], sharpness=3.0 if step == 20 else 2.0)
    ((_, decision),) = run.decisions
    assert decision.frame == 21
    assert decision.reason is None


def test_a_part_that_stops_is_decided_once() -> None:
    """A part that stops gets its verdict within a second and no other one, however long it stays."""
    run = Run()
    run.move([-40.0], [8.0] * 25)
    run.move([160.0], [0.0] * 300)
    assert [number for number, _ in run.decisions] == [pytest.approx(40, abs=6)]
    run.move([160.0], [8.0] * 30)
    run.end()
    assert run.parts == [1]


@pytest.mark.parametrize("reach", [30.0, 90.0, 200.0])
def test_a_part_that_comes_back_by_its_entry_keeps_its_number(reach: float) -> None:
    """The belt jogs back, half a part, a whole one or a judged one: one number and one verdict."""
    run = Run(sharpness=1.0)
    there = run.move([-40.0], [5.0] * round((40.0 + reach - 30.0) / 5.0))
    back = run.move([-40.0 + there], [-5.0] * round(there / 5.0 + 4))
    run.frame([], pause=3)
    run.move([-40.0 + there + back], [5.0] * 80)
    run.end()
    assert run.parts == [1]
    assert not run.reasons


def test_a_part_that_comes_back_by_its_exit_is_not_judged_again() -> None:
    """The belt runs back after a part has left: no second verdict."""
    run = Run(sharpness=1.0)
    there = run.move([200.0], [6.0] * 25)
    run.move([200.0 + there], [-6.0] * 30)
    run.move([200.0 + there - 180.0], [6.0] * 50)
    run.end()
    assert run.parts == [1]


def test_a_part_that_comes_back_late_is_another_part() -> None:
    """After the time to remember, it may be another part; it is judged."""
    run = Run(sharpness=1.0, remember=1.0)
    there = run.move([200.0], [6.0] * 25)
    for _ in range(60):
        run.frame([])
    run.move([200.0 + there], [-6.0] * 30)
    run.end()
    assert run.parts == [1, 2]


def test_a_part_that_never_becomes_whole_is_a_fault() -> None:
    """A part that is longer than the view, or goes back before it is whole, is a fault and never lost."""
    run = Run()
    for step in range(80):
        found = blob(-200.0 + 10.0 * step, side=400.0)
        made = run.tracker.update([found] if found else [], step / 30.0, step, lambda _: (True, 1.0))
        run.decisions += [(step, one) for one in made]
    run.end()
    assert run.parts == [1]
    assert "never whole" in run.reasons[1]


def test_a_part_that_stays_half_in_view_is_a_fault_at_the_end() -> None:
    """A part that is in view at the end and was never whole is a fault."""
    run = Run()
    run.move([-40.0], [5.0] * 10)
    run.end()
    assert "the line ended" in run.reasons[1]


def test_two_parts_in_view_have_their_own_decisions() -> None:
    """Two parts that are whole in one frame are decided by it, each at its place."""
    run = Run(sharpness=1.0)
    made = [one for _ in range(2) for one in run.frame([80.0, 200.0])]
    assert [(one.part, round(one.blob.x)) for one in made] == [(1, 80), (2, 200)]


def test_parts_that_touch_are_faults_until_they_are_apart() -> None:
    """Two parts that touch all the way are two faults; two that part in view are judged."""
    run = Run(area=SIDE * SIDE, sharpness=1.0)
    run.move([-40.0, -100.0], [8.0] * 70)
    run.end()
    assert sorted(run.parts) == [1, 2]
    assert all("touched" in reason for reason in run.reasons.values())
    assert len(run.reasons) == 2
    apart = Run(area=SIDE * SIDE, sharpness=1.0)
    for step in range(70):
        first = -40.0 + 8.0 * step
        apart.frame([first, first - SIDE - max(0.0, 2.0 * (step - 20))])
    apart.end()
    assert sorted(apart.parts) == [1, 2]
    assert not apart.reasons


def test_a_part_that_catches_up_is_not_judged_twice() -> None:
    """A part that is pushed against a judged one, and drawn away again, keeps its number."""
    run = Run(area=SIDE * SIDE, sharpness=1.0)
    run.move([-40.0], [8.0] * 24)
    second = -40.0
    for step in range(60):
        second += 8.0 if step < 13 else (0.0 if step < 20 else -1.0)
        run.frame([min(152.0 + max(0, step - 30) * 8.0, 400.0), min(second, 91.0)])
    run.end()
    assert sorted(run.parts) == [1, 2]


def test_another_part_in_the_window_is_waited_out() -> None:
    """A frame with another part inside the window is not used; a part without another frame is a fault."""
    run = Run(sharpness=1.0)
    for step in range(60):
        made = run.tracker.update(merge([-40.0 + 8.0 * step]), step / 30.0, step, lambda _: None)
        run.decisions += [(step, one) for one in made]
    run.end()
    assert "inside its window" in run.reasons[1]


def test_after_a_long_gap_parts_are_new() -> None:
    """After a gap that may have hidden an exchange of parts, parts are judged again, never left out."""
    run = Run(sharpness=1.0)
    run.move([-40.0], [8.0] * 24)
    run.frame([152.0], pause=60)
    run.frame([160.0])
    assert run.parts == [1, 2]


def test_a_short_gap_changes_nothing() -> None:
    """Two frames that are missing do not make a part another one."""
    run = Run(sharpness=1.0)
    run.move([-40.0], [8.0] * 24)
    run.frame([176.0], pause=3)
    run.move([176.0], [8.0] * 30)
    run.end()
    assert run.parts == [1]


def test_a_speck_is_no_part() -> None:
    """A small blob that is seen once at the edge is not a part, and a hand that flickers there is one part at most."""
    run = Run()
    speck = Blob(2.0, 50.0, 0.0, 48.0, 4.0, 52.0, 16.0, frozenset({"left"}))
    for number in range(30):
        run.tracker.update([speck] if number == 10 else [], number / 30.0, number, lambda _: (True, 1.0))
    assert run.tracker.flush() == []
    assert run.tracker.parts == 0


def test_frames_are_held_no_longer_than_a_part_needs_them() -> None:
    """At most two frames of an undecided part are kept, and none of a decided one."""
    run = Run()
    held = Counter[int]()
    for step in range(60):
        run.frame([-40.0 + 8.0 * step])
        held[len(set(run.tracker.held()))] += 1
    assert max(held) <= 2
    assert not run.tracker.held()


def test_frames_that_come_in_bursts_are_followed() -> None:
    """Frames that come late and then close together do not make two parts of one."""
    run = Run(sharpness=1.0)
    for step in range(200):
        late = (0.0, 0.03, 0.02, 0.01)[step % 4]
        places = [-40.0 + 8.0 * step - 140.0 * part for part in range(8)]
        made = run.tracker.update(merge(places), step / 30.0 + late, step, lambda _: (True, 1.0))
        run.decisions += [(step, one) for one in made]
    run.end()
    assert run.parts == list(range(1, 9))


def test_a_part_that_stands_half_in_view_waits() -> None:
    """While the belt stops with a part cut by the edge there is no verdict; it comes when the belt moves again."""
    run = Run(sharpness=1.0)
    run.move([-40.0], [8.0] * 6)
    run.move([8.0], [0.0] * 200)
    assert run.parts == []
    run.move([8.0], [8.0] * 40)
    run.end()
    assert run.parts == [1]
    assert not run.reasons
