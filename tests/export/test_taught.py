from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import Result
from onnx import TensorProto

from onspect.export.precision.search import quantize
from onspect.runtime.errors import DatasetError, ExportError
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.model.file import read_model_file
from onspect.runtime.teaching import add, take_back, teach
from onspect.runtime.teaching.extract import Extractor
from onspect.runtime.teaching.graph_values import Stored, read_metric
from onspect.runtime.teaching.memory import score_images

from ..runtime.teaching.conftest import base_file, parts, taught, taught_once, write_pictures
from ..runtime.teaching.test_teach import graph_of, load, score

pytestmark = pytest.mark.slow

__all__ = ["base_file", "parts", "taught", "taught_once"]

Run = Callable[..., Result]


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_small_form_is_a_complete_file(taught: Path, parts: Path, tmp_path: Path, precision: str) -> None:
    """The small file is smaller, says its precision, judges by its own threshold, and keeps the lessons."""
    reduced = quantize(taught, tmp_path / "small.onnx", precision, parts, max_flips=3)
    old, new = read_model_file(taught), read_model_file(tmp_path / "small.onnx")
    assert new.info.provenance.precision == precision
    assert len(new.info.provenance.reduced_layers) + len(new.info.provenance.float_layers) == 6
    assert new.info.memory is not None
    assert old.info.memory is not None
    assert new.info.memory.pictures == old.info.memory.pictures
    assert new.training_images == old.training_images
    assert new.info.threshold is not None
    assert reduced.agreement.images == 18
    assert reduced.agreement.policy.startswith("false rejects of new good parts at most")
    good, spots = (score(new.path, load(new.path, parts / "test" / kind)) for kind in ("good", "spot"))
    assert spots.min() > good.max()
    assert Inspector(new).label.startswith("small@")


def test_float16_scores_and_threshold_stay(taught: Path, parts: Path, tmp_path: Path) -> None:
    """Weights in float16 move scores little; the bytes of the weights are halved, the threshold stays."""
    quantize(taught, tmp_path / "small.onnx", "fp16", parts)
    old, new = read_model_file(taught).info, read_model_file(tmp_path / "small.onnx").info
    assert (new.threshold, new.calibration) == (old.threshold, old.calibration)
    images = load(taught, parts / "test/good")
    assert score(tmp_path / "small.onnx", images) == pytest.approx(score(taught, images), rel=0.15)
    kinds = {tensor.name: tensor.data_type for tensor in onnx.load(tmp_path / "small.onnx").graph.initializer}
    assert kinds["backbone.half.weight.half"] == TensorProto.FLOAT16
    assert kinds["memory.project"] == TensorProto.FLOAT


def test_int8_memory_is_of_its_own_features(taught: Path, parts: Path, tmp_path: Path) -> None:
    """The quantised backbone's features, as teaching reads them, are those that the graph's memory is searched with."""
    small = tmp_path / "small.onnx"
    quantize(taught, small, "int8", parts, max_flips=3)
    model = onnx.load(small)
    assert TensorProto.INT8 in {tensor.data_type for tensor in model.graph.initializer}
    assert {node.domain for node in model.graph.node} == {""}
    images = load(small, parts / "test/good")
    features = Extractor.open(graph_of(small)).extract(images)
    metric, stored = read_metric(graph_of(small)), Stored.read(graph_of(small))
    expected = score_images(metric.patches(features), stored.vectors.astype(np.float32), features.shapes)
    assert score(small, images) == pytest.approx(expected, rel=1e-2)
    trained = score(small, load(small, parts / "train/good"))
    assert trained.max() < 0.2 * np.median(score(small, images))


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_small_form_can_be_taught_more(taught: Path, parts: Path, tmp_path: Path, precision: str) -> None:
    """--add-to and --undo work on a small file as on the large one."""
    small = tmp_path / "small.onnx"
    quantize(taught, small, precision, parts, max_flips=3)
    graph, folder = graph_of(small), write_pictures(tmp_path / "more", range(500, 506))
    before = score(small, load(small, folder))
    assert add(small, folder).pictures == 6
    assert (score(small, load(small, folder)) < 0.3 * before).all()
    take_back(small)
    assert graph_of(small) == graph


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_calibrated_policy_is_kept(taught: Path, parts: Path, tmp_path: Path, onspect: Run, precision: str) -> None:
    """A threshold that `calibrate` chose is chosen again by its policy."""
    assert onspect("calibrate", taught, parts, "--max-fpr", "10%").exit_code == 0
    done = onspect("export", taught, "-o", tmp_path / "small.onnx", f"--{precision}", "--data", parts, "--max-flips", 3)
    assert done.exit_code == 0, done.output
    new = read_model_file(tmp_path / "small.onnx").info
    assert new.calibration is not None
    assert new.calibration.rule is not None
    assert (new.calibration.rule.name, new.calibration.rule.rate) == ("max_fpr", 0.1)


def test_int8_keeps_mask_and_copies(base_file: Path, parts: Path, tmp_path: Path) -> None:
    """What the mask ignores still changes nothing, and the flipped copies are taught again."""
    import cv2

    mask = np.full((96, 96), 255, np.uint8)
    mask[:, :32] = 0
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    teach(parts, tmp_path / "part.onnx", base=base_file, copies="flips", mask=tmp_path / "mask.png")
    small = quantize(tmp_path / "part.onnx", tmp_path / "small.onnx", "int8", parts, max_flips=18)
    assert small.info.memory is not None
    assert small.info.memory.copies == "flips"
    images = load(small.path, parts / "test/good")
    painted = images.copy()
    painted[:, :, :32] = 255
    assert score(small.path, images).tolist() == score(small.path, painted).tolist()


def test_int8_needs_all_taught_pictures(taught: Path, parts: Path, tmp_path: Path) -> None:
    """If pictures that were taught are not in the dataset, int8 is refused in one sentence."""
    folder = write_pictures(tmp_path / "other/train/good", range(3, 8))
    write_pictures(tmp_path / "other/val/good", range(100, 103))
    with pytest.raises(DatasetError, match=r"has 5 of the 12 good pictures that .* was taught, and int8 teaches them"):
        quantize(taught, tmp_path / "small.onnx", "int8", folder.parents[1])
    assert not (tmp_path / "small.onnx").exists()


def test_too_many_flips_write_nothing(
    taught: Path, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If verdicts flip in every mix of layers, nothing is written."""
    original = quantize.__globals__["score_like"]
    monkeypatch.setitem(
        quantize.__globals__,
        "score_like",
        lambda reference, file, graph: original(reference, file, graph) * (1.0 if len(reference.scores) == 0 else 9.0),
    )
    with pytest.raises(ExportError, match=r"of 18 verdicts differ from those of part@.* nothing was written"):
        quantize(taught, tmp_path / "small.onnx", "int8", parts)
    assert not (tmp_path / "small.onnx").exists()
