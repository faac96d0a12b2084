"""Records come back from JSON unchanged, with any content."""

from __future__ import annotations

import dataclasses
import inspect
import json
import pickle
import types
import typing
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onspect.runtime.errors import FAULT_CODES
from onspect.runtime.inspection.regions import Region
from onspect.runtime.inspection.verdict import Verdict, parse_verdict
from onspect.runtime.judgement import Judgement
from onspect.runtime.model.schema import (
    Alignment,
    Bfloat16Margin,
    ModelInfo,
    Preprocess,
    RegionOfInterest,
    SourceLimits,
    Threshold,
    Tiling,
)
from onspect.runtime.records import parse_dataclass, quick_init
from onspect.runtime.status import LineStatus

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
NAMES = st.text(st.characters() | st.integers(0xDC80, 0xDCFF).map(chr))
"""Names of files, also those whose bytes are not UTF-8: Python keeps these as lone surrogates."""


def make_threshold(score: float, map_cut: float, below: float | None, area: int) -> Threshold:
    """Return a threshold whose review band is below its cut."""
    review = None if below is None or not score - below < score else score - below
    return Threshold(score, map_cut, review, area)


def make_tiling(width: int, height: int, across: list[int], down: list[int]) -> Tiling:
    """Return a tiling without gaps."""
    lefts, tops = (
        tuple(accumulate((min(step, side) for step in steps), initial=0))
        for steps, side in ((across, width), (down, height))
    )
    return Tiling(width, height, lefts, tops)


def make_preprocess(numbers: list[int], region: RegionOfInterest | None, align: Alignment | None) -> Preprocess:
    """Return a recipe whose alignment has a region."""
    width, height, channels, white = numbers
    limits = SourceLimits((1, 3), None, (1, height))
    return Preprocess(width, height, channels, white, limits, region, None if region is None else align)


PIXELS = st.integers(0, 10**4)
POLYGONS = st.lists(st.lists(st.tuples(PIXELS, PIXELS), min_size=3, max_size=5).map(tuple), max_size=2).map(tuple)
RECTANGLES = st.lists(st.tuples(PIXELS, PIXELS, PIXELS, PIXELS), max_size=2).map(tuple)
REGIONS_OF_INTEREST = st.builds(
    RegionOfInterest,
    st.just((3, 4, 20, 10)),
    st.tuples(st.integers(23, 10**4), st.integers(14, 10**4)),
    *(RECTANGLES, POLYGONS, RECTANGLES, POLYGONS),
)
ALIGNMENTS = st.builds(
    Alignment,
    st.tuples(PIXELS, PIXELS, PIXELS, PIXELS),
    st.text(max_size=10),
    st.floats(0, 180),
    st.floats(0, 0.2),
    st.floats(0.01, 0.99),
    PIXELS,
)
STEPS = st.lists(st.integers(1, 500), max_size=4)
CHECKED = {
    Threshold: st.builds(make_threshold, NUMBERS, NUMBERS, st.none() | st.floats(0.001, 1000.0), st.integers(0, 10**6)),
    Preprocess: st.builds(
        make_preprocess,
        st.lists(PIXELS, min_size=4, max_size=4),
        st.none() | REGIONS_OF_INTEREST,
        st.none() | ALIGNMENTS,
    ),
    Bfloat16Margin: st.builds(
        Bfloat16Margin,
        *(st.floats(-1e6, 0.0), st.floats(0.0, 1e6), st.floats(0.0, 1.0), PIXELS),
        *[st.text(max_size=10)] * 4,
    ),
    Tiling: st.builds(make_tiling, st.integers(1, 500), st.integers(1, 500), STEPS, STEPS),
}
"""Records that check their fields when they are made."""


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Return a strategy for the values of a field, by its type."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind in CHECKED:
        return CHECKED[kind]
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        fields = {one.name: values(hints[one.name]) for one in dataclasses.fields(kind)}
        return st.fixed_dictionaries(fields).map(lambda facts: kind(**facts))
    if origin is typing.Literal:
        return st.sampled_from(arguments)
    if origin is types.UnionType:
        return st.one_of(*map(values, arguments))
    if origin is tuple and arguments[-1] is Ellipsis:
        return st.lists(values(arguments[0]), max_size=3).map(tuple)
    if origin is tuple:
        return st.tuples(*map(values, arguments))
    if origin is dict:
        return st.dictionaries(st.text(max_size=5), values(arguments[1]), max_size=3)
    simple: dict[Any, st.SearchStrategy[Any]] = {
        float: NUMBERS,
        int: st.integers(-(2**53), 2**53),
        str: st.text(max_size=10),
        bool: st.booleans(),
        type(None): st.none(),
    }
    return simple[kind]


REGIONS = st.builds(Region, *[st.integers(0, 10**6)] * 4, NUMBERS, st.integers(0, 10**9))
VERDICTS = st.builds(
    Verdict,
    source=NAMES,
    index=st.integers(0, 10**12),
    time=st.text(max_size=30),
    verdict=st.sampled_from(typing.get_args(Judgement)),
    score=st.none() | NUMBERS,
    threshold=NUMBERS,
    regions=st.lists(REGIONS, max_size=3).map(tuple),
    latency_ms=NUMBERS,
    model=st.text(max_size=30),
    reason=st.none() | NAMES,
    part=st.none() | NAMES,
    review_threshold=st.none() | NUMBERS,
    pose_x=st.none() | NUMBERS,
    pose_y=st.none() | NUMBERS,
    pose_angle=st.none() | NUMBERS,
    code=st.none() | st.sampled_from(list(FAULT_CODES)),
)


@given(VERDICTS)
def test_a_verdict_s_line_is_read_as_it_was_written(verdict: Verdict) -> None:
    """A verdict is one line of JSON that gives the verdict back, also as the bytes that a spool keeps of it."""
    line = verdict.to_json()
    assert "\n" not in line
    assert parse_verdict(line) == verdict
    assert parse_verdict(line.encode(errors="backslashreplace")) == verdict
    assert json.loads(line) == json.loads(json.dumps(verdict.to_dict()))


@given(VERDICTS, st.dictionaries(st.text(min_size=1).map("later_{}".format), st.integers()))
def test_a_later_release_s_verdict_is_read(verdict: Verdict, later: dict[str, int]) -> None:
    """Keys that this release does not know are left out."""
    assert parse_verdict(json.dumps(json.loads(verdict.to_json()) | later)) == verdict


@pytest.mark.parametrize("kind", [ModelInfo, LineStatus])
@settings(max_examples=25)  # the records are large
@given(data=st.data())
def test_a_record_is_read_as_it_was_written(kind: type[Any], data: st.DataObject) -> None:
    """The metadata of a model file and the status of a line come back unchanged, also with keys of a later release."""
    record = data.draw(values(kind))
    content = record.to_dict() if hasattr(record, "to_dict") else dataclasses.asdict(record)
    written = json.loads(json.dumps(content, allow_nan=False))
    assert parse_dataclass(kind, written) == record
    assert parse_dataclass(kind, written | {"of a later release": [1, {}]}) == record


@quick_init
@dataclass(frozen=True)
class Quick:
    """A class with a default, whose instances are made quickly."""

    first: int
    second: str = "usual"


def test_a_class_that_is_made_quickly_is_an_ordinary_dataclass() -> None:
    """Parameters, defaults, equality, replacement, pickling and the protection of fields are those of a dataclass."""
    one = Quick(1)
    assert one == Quick(first=1, second="usual")
    assert (
        dataclasses.replace(one, second="other") == Quick(1, "other") == pickle.loads(pickle.dumps(Quick(1, "other")))
    )
    assert str(inspect.signature(Quick)) == "(first: 'int', second: 'str' = 'usual') -> None"
    for wrong in ({}, {"first": 1, "third": 2}):
        with pytest.raises(TypeError, match=r"Quick\.__init__\(\)"):
            Quick(**wrong)
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.first = 2


@pytest.mark.parametrize(
    "kind",
    [
        dataclasses.make_dataclass("Factory", [("items", list, field(default_factory=list))], frozen=True),
        dataclasses.make_dataclass("Keyword", [("item", int)], frozen=True, kw_only=True),
        dataclasses.make_dataclass("Slots", [("item", int)], frozen=True, slots=True),
        dataclasses.make_dataclass("Checked", [("item", int)], frozen=True, namespace={"__post_init__": print}),
    ],
    ids=lambda kind: kind.__name__,
)
def test_what_a_quick_init_would_leave_out_is_refused(kind: type[Any]) -> None:
    """A class whose usual `__init__` does more than store its fields is refused."""
    with pytest.raises(TypeError, match="does more than store its fields"):
        quick_init(kind)
