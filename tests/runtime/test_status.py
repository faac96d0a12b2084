from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from onspect.runtime.errors import ChoiceError
from onspect.runtime.status import LineStatus, SourceState, obey


class Recorder:
    """Takes commands and writes them down."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, Any]] = []

    def swap(self, path: Path | str) -> None:
        self.taken.append(("swap", path))

    def recipe(self, name: str) -> None:
        self.taken.append(("recipe", name))

    def set_threshold(self, score: float) -> float:
        self.taken.append(("threshold", score))
        return 0.25

    def undo_threshold(self) -> tuple[float, float]:
        self.taken.append(("undo", None))
        return 0.25, 0.25

    def stop(self) -> None:
        self.taken.append(("stop", None))


def test_commands_over_a_wire_are_obeyed() -> None:
    """Each command's message calls it with its value."""
    recorder = Recorder()
    obey(recorder, {"command": "swap", "model": "b.onnx"})
    obey(recorder, {"command": "recipe", "name": "left"})
    obey(recorder, {"command": "threshold", "score": 3})
    obey(recorder, {"command": "stop"})
    assert recorder.taken == [("swap", "b.onnx"), ("recipe", "left"), ("threshold", 3), ("stop", None)]


@pytest.mark.parametrize(
    "message",
    [{}, {"command": ["swap"]}, {"command": "boil"}, {"command": "swap"}, {"command": "threshold", "score": True}],
)
def test_a_message_that_is_no_command_is_refused(message: dict[str, Any]) -> None:
    """A message without a known command and a fitting value raises ChoiceError and calls nothing."""
    recorder = Recorder()
    with pytest.raises(ChoiceError, match="command"):
        obey(recorder, message)
    assert recorder.taken == []


def test_status_is_json() -> None:
    """A status becomes a JSON object, with the reconnects of all sources added up."""
    sources = (SourceState("a", True, reconnects=2), SourceState("b", False, reconnects=1))
    status = LineStatus("s", "t", True, "part@1", None, 1.0, None, sources=sources)
    assert json.loads(json.dumps(status.to_dict()))["reconnects"] == 3
