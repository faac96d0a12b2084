"""A line shows its present state first: an old OK is not shown, and a lost camera precedes all."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from onspect.runtime.line import Line, Models, Timing
from onspect.runtime.sources.fake import FakeFault, FakeSource
from onspect.runtime.status import Moment, describe_moment

from ..verdicts import wait_until

QUICK = Timing(tick=0.02, report=0.05)


@pytest.mark.parametrize(
    ("lost", "last", "age", "moment"),
    [
        ([], None, None, Moment("waiting")),
        ([], ("ok", "left"), 0.3, Moment("ok", "left", 0.3)),
        ([], ("ng", "left"), 4.9, Moment("ng", "left", 4.9)),
        ([], ("ok", "left"), 5.1, Moment("waiting", "left", 5.1)),
        (["right"], ("ok", "left"), 0.3, Moment("lost", "right", 0.3)),
        (["left", "right"], None, None, Moment("lost", "left, right")),
    ],
)
def test_a_moment_is_the_worst_that_holds_now(lost: Any, last: Any, age: Any, moment: Moment) -> None:
    """A lost camera, then age, then the last verdict decide the shown state."""
    assert describe_moment(lost, last, age) == moment


def test_an_old_ok_fades(models: Models, keeper: Any, noisy: Callable[[int], np.ndarray], running: Any) -> None:
    """After the last part of a triggered camera the state becomes waiting, and does not stay OK."""
    source = FakeSource(noisy, count=3, rate=50, patience=None, faults={3: FakeFault("hang", seconds=2.0)})
    line = Line(models, [source], [keeper], timing=dataclasses.replace(QUICK, fade=0.3))
    with running(line):
        wait_until(lambda: line.status().now == "ok")
        assert line.status().now_source == keeper.verdicts[0].source
        wait_until(lambda: line.status().now == "waiting")
    assert line.status().now == "waiting"


def test_one_lost_camera_of_two_is_what_is_shown(
    models: Models, keeper: Any, noisy: Callable[[int], np.ndarray], running: Any
) -> None:
    """While the other camera's parts are ok, the state is `lost` and names the camera."""
    there = FakeSource(noisy, rate=50, name="left")
    away = FakeSource(noisy, rate=50, name="right", faults={2: FakeFault("lost", seconds=30.0)})
    line = Line(models, [there, away], [keeper], timing=QUICK)
    with running(line):
        wait_until(lambda: line.status().now == "lost")
        count = len(keeper.seen)
        wait_until(lambda: len(keeper.seen) > count + 5)
        assert keeper.seen[-1] == "ok"
        assert (line.status().now, line.status().now_source) == ("lost", "right")
