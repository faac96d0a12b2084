"""Views of one part from several cameras: the worst decides, and a missing one is a fault."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from onspect.runtime.inspection.inspector import Inspection
from onspect.runtime.inspection.verdict import Verdict
from onspect.runtime.judgement import WORST_FIRST, Judgement
from onspect.runtime.line import Line, Models, Voting
from onspect.runtime.line.views import Join, ViewJoiner
from onspect.runtime.sources.fake import FakeSource


def view(judgement: Judgement, part: str | None = None, score: float = 1.0) -> Inspection:
    """Return one view's inspection."""
    known = None if judgement == "fault" else score
    reason = "broken" if judgement == "fault" else None
    verdict = Verdict("c", 0, "t", judgement, known, 5.0, (), 1.0, "m", part=part, reason=reason)
    return Inspection(verdict, None, None, map_threshold=1.0, white_level=255)


@pytest.mark.parametrize("join", ["part", "trigger"])
@pytest.mark.parametrize("views", list(itertools.product(["ok", "review", "fault", "ng"], repeat=2)))
def test_the_worst_view_decides(join: Join, views: tuple[Judgement, Judgement]) -> None:
    """Of two views the worse one is the part's verdict, given once both are there."""
    joiner = ViewJoiner(join, ["top", "side"], within=1.0)
    assert joiner.add(0, view(views[0], "7"), captured=0.0, now=0.0) == []
    (part,) = joiner.add(1, view(views[1], "7"), captured=0.1, now=0.1)
    assert part.verdict.verdict == min(views, key=WORST_FIRST.index)
    assert part.verdict.part == "7"
    assert joiner.flush() == []


@pytest.mark.parametrize(("seen", "expected"), [("ok", "fault"), ("review", "fault"), ("ng", "ng"), ("fault", "fault")])
def test_a_missing_view_is_never_ok(seen: Judgement, expected: Judgement) -> None:
    """A part without one of its views is a fault that names the camera, or ng; it waits while frames wait."""
    joiner = ViewJoiner("part", ["top", "side"], within=1.0)
    joiner.add(0, view(seen, "7"), captured=0.0, now=0.0)
    assert joiner.expire(0.9) == []
    assert joiner.expire(2.0, {1}) == []
    (part,) = joiner.expire(2.0)
    assert part.verdict.verdict == expected
    if seen in ("ok", "review"):
        assert part.verdict.reason == "the view of side is missing: 1 of 2 views came"
        assert part.verdict.code == "incomplete"


def test_a_late_view_is_a_fault_of_its_own() -> None:
    """A view that comes after the part's verdict is reported, and never makes another part ok."""
    joiner = ViewJoiner("part", ["top", "side"], within=1.0)
    joiner.add(0, view("ok", "7"), captured=0.0, now=0.0)
    joiner.expire(2.0)
    (late,) = joiner.add(1, view("ok", "7"), captured=2.1, now=2.1)
    assert late.verdict.verdict == "fault"
    assert "came after" in str(late.verdict.reason)
    assert late.verdict.code == "late"


def test_views_without_an_id_cannot_be_joined_by_it() -> None:
    """A view without a part id is a fault; that of a lost camera keeps its reason."""
    joiner = ViewJoiner("part", ["top", "side"], within=1.0)
    (part,) = joiner.add(0, view("ok"), captured=0.0, now=0.0)
    assert "no part id" in str(part.verdict.reason)
    assert part.verdict.code == "incomplete"
    (lost,) = joiner.add(0, view("fault"), captured=0.0, now=0.0)
    assert lost.verdict.reason == "broken"


def test_triggers_are_joined_by_their_time() -> None:
    """Views that were captured together are one part, in any order of judging."""
    joiner = ViewJoiner("trigger", ["top", "side"], within=0.2)
    joiner.add(0, view("ok"), captured=1.0, now=1.0)
    joiner.add(0, view("ng"), captured=2.0, now=2.0)
    (second,) = joiner.add(1, view("ok"), captured=2.05, now=2.1)
    (first,) = joiner.add(1, view("ok"), captured=1.05, now=2.1)
    assert [second.verdict.verdict, first.verdict.verdict] == ["ng", "ok"]
    assert [second.verdict.index, first.verdict.index] == [0, 1]


def test_two_cameras_give_one_verdict_a_part(unchecked: Models, keeper: Any) -> None:
    """On a line, the parts of two cameras are judged once each; the part that one camera missed is a fault."""

    def draw(number: int) -> np.ndarray:
        return np.full((16, 16), 128 if number != 3 else 255, np.uint8)

    top = FakeSource(draw, count=6, rate=0, part=str, name="top")
    side = FakeSource(lambda _: np.full((16, 16), 128, np.uint8), count=5, rate=0, part=str, name="side")
    voting = Voting(views="part", timeout=5.0)
    status = Line(unchecked, [top, side], [keeper], policies=["wait", "wait"], voting=voting).run()
    said = {verdict.part: verdict.verdict for verdict in keeper.verdicts}
    assert said == {"0": "ok", "1": "ok", "2": "ok", "3": "ng", "4": "ok", "5": "fault"}
    assert len(keeper.verdicts) == 6
    assert (status.captured, status.judged) == (11, 11)
    assert sorted(verdict.index for verdict in keeper.verdicts) == list(range(6))
