"""A threshold that was moved on a running line belongs to the model file on which it was moved."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from onspect.runtime.errors import ChoiceError
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.line import Models
from onspect.runtime.model.schema import Threshold

OWN, MOVED = 0.0062, 0.002
"""The tiny model file's own threshold, and one that somebody set."""


@pytest.fixture
def moved(unchecked: Models) -> Models:
    """Return models whose threshold was moved."""
    unchecked.set_threshold(MOVED)
    unchecked.apply()
    return unchecked


def test_a_move_holds_if_the_same_file_is_read_again(moved: Models, calibrated: Path) -> None:
    """Touch, SIGHUP and a swap for the same bytes leave the moved threshold in place."""
    copy = calibrated.with_name("copy.onnx")
    copy.write_bytes(calibrated.read_bytes())
    os.utime(calibrated, (1, 1))
    for read_again in (moved.watch, lambda: moved.watch(always=True), lambda: moved.swap(copy)):
        read_again()
        moved.apply()
        assert moved.current.inspector.threshold.score == MOVED
        assert moved.moved is not None
        assert (moved.moved.score, moved.moved.before) == (MOVED, OWN)


@pytest.mark.parametrize("way", ["file", "swap"])
def test_a_move_is_dropped_aloud_with_another_file(
    moved: Models, calibrated: Path, write_tiny_model: Callable[..., Path], caplog: pytest.LogCaptureFixture, way: str
) -> None:
    """Another model judges with its own threshold, and log and status say that the moved one is gone."""
    path = calibrated if way == "file" else calibrated.with_name("other.onnx")
    write_tiny_model(path, gain=2.0, threshold=Threshold(0.0062, 0.0062))
    with caplog.at_level(logging.WARNING, "onspect"):
        moved.watch() if way == "file" else moved.swap(path)
        moved.apply()
    assert moved.current.inspector.threshold.score == OWN
    assert moved.moved is None
    assert any("the threshold 0.002 was set for" in line and "dropped" in line for line in caplog.messages)


def test_a_dropped_move_stands_in_the_message(moved: Models, calibrated: Path, write_tiny_model: Any) -> None:
    """The line's message, which page and MQTT show, still says it once the new model judges."""
    write_tiny_model(calibrated, gain=2.0, threshold=Threshold(0.0062, 0.0062))
    moved.watch()
    moved.apply()
    assert "dropped" in moved.message


def test_moves_are_taken_back_one_by_one(moved: Models) -> None:
    """The undo goes back move by move, to the file's own threshold, and then there is nothing to undo."""
    moved.set_threshold(0.004)
    for expected in (MOVED, OWN):
        moved.undo_threshold()
        moved.apply()
        assert moved.current.inspector.threshold.score == expected
    assert moved.moved is None
    with pytest.raises(ChoiceError, match="no move"):
        moved.undo_threshold()


@pytest.mark.parametrize("score", [OWN / 11, OWN * 11, 0.0, -1.0])
def test_a_move_has_bounds(unchecked: Models, score: float) -> None:
    """A threshold far from the file's, as of a slip of the finger, is refused with the range."""
    with pytest.raises(ChoiceError, match=r"give 0\.00062 to 0\.062"):
        unchecked.set_threshold(score)
    assert unchecked.moved is None


def test_bounds_hold_over_several_moves(unchecked: Models) -> None:
    """The range is the file's, so that many small moves do not lead out of it."""
    unchecked.set_threshold(OWN * 9)
    with pytest.raises(ChoiceError):
        unchecked.set_threshold(OWN * 81)


def test_each_recipe_has_its_own_move(tmp_path: Path, write_tiny_model: Callable[..., Path]) -> None:
    """A move on one recipe does not affect another, and is kept until the recipe comes back."""
    paths = {name: write_tiny_model(tmp_path / f"{name}.onnx", threshold=Threshold(0.1, 0.1)) for name in ("a", "b")}
    models = Models(paths, "a", Inspector)
    models.set_threshold(0.2)
    models.choose("b")
    models.apply()
    assert models.current.inspector.threshold.score == 0.1
    models.choose("a")
    models.apply()
    assert models.current.inspector.threshold.score == 0.2
