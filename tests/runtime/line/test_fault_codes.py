"""Every fault of a line has a code that programs can rely on, from a short, documented table."""

from __future__ import annotations

import ast
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onspect.runtime
from onspect.runtime.errors import FAULT_CODES, FAULT_NUMBERS, GapError, ImageError
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.line import Health, Line, Models, Voting
from onspect.runtime.model.schema import Threshold
from onspect.runtime.sources.fake import FakeFault, FakeSource

Draw = Callable[[int], np.ndarray]


def test_codes_in_the_source_are_those_of_the_table() -> None:
    """Each code that is set anywhere in the runtime is in the table, and each of the table is set somewhere."""
    used = {ImageError("").code, GapError("").code}
    for path in Path(onspect.runtime.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "code" and isinstance(node.value, ast.Constant):
                used.add(node.value.value)
    assert used == set(FAULT_CODES)


def test_documentation_has_every_code() -> None:
    """docs/faults.md has the meaning of each code as in the table."""
    text = (Path(__file__).parents[3] / "docs" / "faults.md").read_text(encoding="utf-8")
    for code, meaning in FAULT_CODES.items():
        assert f"| `{code}` | {meaning} | {FAULT_NUMBERS[code]} |" in text


def test_numbers_of_codes_stay() -> None:
    """A PLC program relies on the numbers: the codes of the first release with numbers keep theirs."""
    first = ["image", "size", "resolution", "black", "saturated", "brightness", "blurred", "frozen"]
    first += ["late", "overrun", "position", "lost", "vanished", "incomplete", "recipe", "model"]
    assert [FAULT_NUMBERS[code] for code in first] == list(range(1, 17))


@pytest.mark.parametrize(
    ("fault", "code"), [("black", "black"), ("white", "saturated"), ("frozen", "frozen"), ("corrupt", "image")]
)
def test_a_spoilt_frame_has_its_code(models: Models, keeper: Any, noisy: Draw, fault: Any, code: str) -> None:
    """A faulty frame has a code beside the sentence; a good frame has none."""
    Line(models, [FakeSource(noisy, count=3, rate=0, faults={1: FakeFault(fault)})], [keeper], policies=["wait"]).run()
    assert [verdict.code for verdict in keeper.verdicts] == [None, code, None]


def test_a_lost_camera_has_its_code(models: Models, keeper: Any, noisy: Draw) -> None:
    """A gap is `lost`."""
    source = FakeSource(noisy, count=3, rate=0, faults={1: FakeFault("lost", seconds=0.01)})
    Line(models, [source], [keeper], policies=["wait"]).run()
    assert [verdict.code for verdict in keeper.verdicts if verdict.code] == ["lost"]


def test_late_and_unknown_recipes_have_their_codes(calibrated: Path, keeper: Any, noisy: Draw) -> None:
    """Frames that the line itself refuses have a code too."""

    class Odd(FakeSource):
        def __iter__(self):
            for number, capture in enumerate(super().__iter__()):
                late = {"captured": time.perf_counter() - 1.0}
                yield dataclasses.replace(capture, **({"recipe": "none such"} if number else late))

    models = Models({None: calibrated}, None, Inspector, Health(late_ms=500))
    Line(models, [Odd(noisy, count=2, rate=0)], [keeper], policies=["wait"]).run()
    assert [verdict.code for verdict in keeper.verdicts] == ["late", "recipe"]


def test_a_part_with_missing_frames_has_its_code(models: Models, keeper: Any, noisy: Draw) -> None:
    """Frames that never came are `incomplete`."""
    source = FakeSource(noisy, count=3, rate=0)
    Line(models, [source], [keeper], policies=["wait"], voting=Voting(frames=2)).run()
    assert [verdict.code for verdict in keeper.verdicts] == [None, "incomplete"]


def test_wrong_size_and_invalid_output_have_their_codes(tmp_path: Path, write_tiny_model: Callable[..., Path]) -> None:
    """Channels that a model does not take, and a score that is not a number, are distinguished."""
    broken = Inspector(write_tiny_model(tmp_path / "broken.onnx", gain=float("nan"), threshold=Threshold(0.1, 0.1)))
    assert broken.inspect(np.full((16, 16), 128, np.uint8)).code == "model"
    assert broken.inspect(np.full((16, 16, 4), 128, np.uint8)).code == "size"
