from __future__ import annotations

import dataclasses
from itertools import groupby
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onspect.runtime.inspection.inspector import Inspection
from onspect.runtime.inspection.verdict import Verdict
from onspect.runtime.judgement import Judgement
from onspect.runtime.line.voting import Rule, Voter, Voting

PICTURE = np.full((8, 8), 4095, np.uint16)
HEAT = np.ones((4, 4), np.float32)


def frame(judgement: Judgement, score: float = 1.0, part: str | None = None) -> Inspection:
    """Return one frame's inspection."""
    facts: dict[str, Any] = {"reason": "broken"} if judgement == "fault" else {}
    known = None if judgement == "fault" else score
    verdict = Verdict("c", 0, "t", judgement, known, 5.0, (), 1.0, "m", part=part, **facts)
    return Inspection(verdict, PICTURE, None if known is None else HEAT, map_threshold=score, white_level=4095)


def vote(voting: Voting, judgements: list[Judgement]) -> list[str]:
    """Return the verdicts of the parts that frames make, also of the last."""
    voter = Voter(voting, 1)
    parts = [part for one in judgements for part in voter.add(0, frame(one), gap=False, now=0.0)]
    return [part.verdict.verdict for part in (*parts, *voter.flush())]


@pytest.mark.parametrize(
    ("judgements", "worst", "majority"),
    [
        (["ok", "ok", "ok"], "ok", "ok"),
        (["ok", "ng", "ok"], "ng", "ok"),
        (["ok", "fault", "ok"], "fault", "fault"),
        (["ng", "fault", "ok"], "ng", "ng"),
        (["review", "ok", "fault"], "fault", "fault"),
        (["review", "ok", "ok"], "review", "ok"),
        (["ng", "ng", "ok"], "ng", "ng"),
        (["ok", "ok"], "fault", "fault"),
        (["ok"], "fault", "fault"),
    ],
)
def test_frames_become_one_verdict(judgements: list[Judgement], worst: str, majority: str) -> None:
    """Three frames give the worst verdict, or that of more than half; with an unseen frame a part is never ok."""
    assert vote(Voting(frames=3, rule="worst"), judgements) == [worst]
    assert vote(Voting(frames=3, rule="majority"), judgements) == [majority]


def test_a_frame_is_a_part_by_default() -> None:
    """Without a number and without part ids, each frame is a part."""
    assert vote(Voting(), ["ok", "ng", "fault"]) == ["ok", "ng", "fault"]


def test_a_part_shows_its_worst_frame() -> None:
    """The part's score is that of its highest frame with the deciding verdict."""
    voter = Voter(Voting(frames=3), 1)
    for score in (1.0, 3.0):
        assert voter.add(0, frame("ok", score), gap=False, now=0.0) == []
    (part,) = voter.add(0, frame("ok", 2.0), gap=False, now=0.0)
    assert part.verdict.score == 3.0


def test_a_part_keeps_what_its_picture_needs() -> None:
    """A part's picture has the frame that decided, with that frame's heat, and scale and white level of its model."""
    voter = Voter(Voting(frames=2), 1)
    voter.add(0, frame("ok", 1.0), gap=False, now=0.0)
    (part,) = voter.add(0, frame("ng", 7.0, part=None), gap=False, now=0.0)
    assert (part.frame is PICTURE, part.error_map is HEAT) == (True, True)
    assert (part.map_threshold, part.white_level) == (7.0, 4095)


def test_a_part_without_all_frames_keeps_what_its_picture_needs() -> None:
    """A fault for missing frames shows a frame that came, at its model's white level, and no heat."""
    voter = Voter(Voting(frames=2), 1)
    voter.add(0, frame("ok", 3.0), gap=False, now=0.0)
    (part,) = voter.flush()
    assert (part.verdict.verdict, part.frame is PICTURE, part.error_map) == ("fault", True, None)
    assert (part.map_threshold, part.white_level) == (3.0, 4095)


def test_part_ids_tell_parts_apart() -> None:
    """A new part id ends the part before it, and a frame without an id is its own part."""
    voter = Voter(Voting(), 1)
    parts = []
    for judgement, name in [("ok", "a"), ("ng", "a"), ("ok", "b"), ("ok", None), ("fault", None), ("ok", "c")]:
        parts += voter.add(0, frame(judgement, part=name), gap=False, now=0.0)
    parts += voter.flush()
    assert [(part.verdict.part, part.verdict.verdict) for part in parts] == [
        ("a", "ng"), ("b", "ok"), (None, "ok"), (None, "fault"), ("c", "ok"),
    ]  # fmt: skip


def test_a_number_and_ids_together_miss_frames() -> None:
    """With a number of frames and part ids, a part whose id ends early lacks frames and is a fault."""
    voter = Voter(Voting(frames=2), 1)
    voter.add(0, frame("ok", part="a"), gap=False, now=0.0)
    (part,) = voter.add(0, frame("ok", part="b"), gap=False, now=0.0)
    assert (part.verdict.part, part.verdict.verdict) == ("a", "fault")
    assert "only 1 of the part's 2 frames" in str(part.verdict.reason)


def test_a_gap_ends_a_part_that_is_then_never_ok() -> None:
    """If frames are missing nobody knows how many, the part is a fault, and the next frame begins a new one."""
    for rule in ("worst", "majority"):
        voter = Voter(Voting(frames=5, rule=rule), 1)
        for _ in range(4):
            voter.add(0, frame("ok"), gap=False, now=0.0)
        (part,) = voter.add(0, frame("fault"), gap=True, now=0.0)
        assert part.verdict.verdict == "fault"
        assert voter.is_between_parts(0)


def test_sources_have_parts_of_their_own() -> None:
    """Frames of two sources are never mixed in one part."""
    voter = Voter(Voting(frames=2), 2)
    assert voter.add(0, frame("ng"), gap=False, now=0.0) == []
    assert voter.add(1, frame("ok"), gap=False, now=0.0) == []
    assert [part.verdict.verdict for part in voter.add(1, frame("ok"), gap=False, now=0.0)] == ["ok"]


def test_a_part_expires_unless_its_next_frame_waits() -> None:
    """A part whose time is over gets its verdict, but not while a frame of its source waits to be judged."""
    voter = Voter(Voting(frames=2, timeout=1.0), 1)
    voter.add(0, frame("ok"), gap=False, now=10.0)
    assert voter.expire(10.9, ()) == []
    assert voter.expire(12.0, {0}) == []
    assert [part.verdict.verdict for part in voter.expire(12.0, ())] == ["fault"]


def test_parts_are_numbered_as_they_end() -> None:
    """A part's index is the number of parts that ended before it, whichever source they came from."""
    voter = Voter(Voting(frames=2), 2)
    ended = [voter.add(source, frame("ok"), gap=False, now=0.0) for source in (0, 1, 1, 1, 0, 1)]
    assert [part.verdict.index for parts in ended for part in parts] == [0, 1, 2]
    assert voter.next_index == 3


FRAMES = st.lists(
    st.builds(frame, st.sampled_from(["ok", "ng", "review", "fault"]), st.floats(0.0, 9.0), st.sampled_from("ab")),
    max_size=12,
)
RULES: list[Rule] = ["worst", "majority"]
WORST_FIRST = ["ng", "fault", "review", "ok"]


def expect(frames: list[Inspection], missing: int, rule: Rule) -> str:
    """Return the expected verdict: that of more than half of the frames, but no ok with an unseen one; or the worst."""
    verdicts = [one.verdict.verdict for one in frames] + ["fault"] * missing
    if rule == "majority":
        for judgement in WORST_FIRST:
            if 2 * verdicts.count(judgement) > len(verdicts):
                return "fault" if judgement == "ok" and "fault" in verdicts else judgement
    return min(verdicts, key=WORST_FIRST.index)


def assert_shows_one_of(part: Inspection, frames: list[Inspection]) -> None:
    """A part shows one of its frames: the highest with the verdict of the part, and its data."""
    deciding = [one for one in frames if one.verdict.verdict == part.verdict.verdict]
    shown = [one for one in frames if one.map_threshold == part.map_threshold]
    assert shown
    assert part.frame is PICTURE
    if deciding:
        assert part.verdict.score == max((one.verdict.score for one in deciding), key=lambda score: score or 0.0)
        assert any(one in deciding and one.error_map is part.error_map for one in shown)
    else:
        assert (part.verdict.verdict, part.verdict.score, part.error_map) == ("fault", None, None)


@given(FRAMES, st.sampled_from(RULES))
def test_parts_by_id_are_the_groups_of_their_frames(frames: list[Inspection], rule: Rule) -> None:
    """Frames that follow one another with one id are a part, none is lost, and the part has the verdict of the rule."""
    voter = Voter(Voting(rule=rule), 1)
    parts = [part for one in frames for part in voter.add(0, one, gap=False, now=0.0)] + voter.flush()
    groups = [(name, list(some)) for name, some in groupby(frames, key=lambda one: one.verdict.part)]
    assert [part.verdict.part for part in parts] == [name for name, _ in groups]
    for part, (_, some) in zip(parts, groups, strict=True):
        assert part.verdict.verdict == expect(some, 0, rule)
        assert_shows_one_of(part, some)


@pytest.mark.slow
@given(FRAMES, st.integers(2, 5), st.sampled_from(RULES))
def test_parts_by_number_are_so_many_frames(frames: list[Inspection], count: int, rule: Rule) -> None:
    """A fixed number of frames is a part, and missing frames of the last one count as faults."""
    frames = [dataclasses.replace(one, verdict=dataclasses.replace(one.verdict, part=None)) for one in frames]
    voter = Voter(Voting(frames=count, rule=rule), 1)
    parts = [part for one in frames for part in voter.add(0, one, gap=False, now=0.0)] + voter.flush()
    groups = [frames[start : start + count] for start in range(0, len(frames), count)]
    for part, some in zip(parts, groups, strict=True):
        assert part.verdict.verdict == expect(some, count - len(some), rule)
        assert_shows_one_of(part, some)


@given(st.lists(st.tuples(st.sampled_from(["ok", "ng", "review"]), st.booleans()), max_size=12), st.sampled_from(RULES))
def test_a_part_with_a_gap_is_never_ok(steps: list[tuple[Judgement, bool]], rule: Rule) -> None:
    """Wherever frames are missing, the part there is not ok, and as many parts end there as there are gaps."""
    voter = Voter(Voting(frames=100, rule=rule), 1)
    ended: list[Inspection] = []
    for judgement, gap in steps:
        ended += voter.add(0, frame("fault" if gap else judgement), gap=gap, now=0.0)
    assert len(ended) == sum(gap for _, gap in steps)
    assert all(part.verdict.verdict != "ok" for part in (*ended, *voter.flush()))
