from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pytest

from onspect.calibration.calibration import calibrate


@pytest.mark.parametrize(("score", "same"), [("mse", False), ("peak", True), ("relative", True), ("expected", True)])
def test_one_threshold_where_the_score_is_the_maximum(
    tmp_path: Path,
    score: str,
    same: bool,
    write_model: Callable[..., Path],
    make_dataset: Callable[[Mapping[str, Iterable[int]]], Path],
) -> None:
    """A score that is the map's maximum shares its threshold with the map; with a mean the map has its own."""
    model = write_model(tmp_path / "part.onnx", score=score)
    data = make_dataset({"val/good": range(120, 136), "val/scratch": [10, 240]})
    threshold = calibrate(model, data).threshold
    assert (threshold.score == threshold.map) is same
