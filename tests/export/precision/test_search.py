from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from click.testing import Result
from onnx import numpy_helper

from onspect.calibration.calibration import calibrate
from onspect.calibration.regions import RegionDemand
from onspect.calibration.review import ReviewShare
from onspect.calibration.thresholds import MaxFpr, Policy, Youden
from onspect.export import agreement
from onspect.export.precision.search import quantize, quantize_model
from onspect.runtime.errors import DatasetError, ExportError, OutputError
from onspect.runtime.fingerprints import fingerprint_bytes
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.model.file import read_model_file, stamp
from onspect.runtime.model.schema import Agreement, Rule

from ...tiny_model import make_info
from .layered_model import SIDE, build_graph, write_layered

Run = Callable[..., Result]


def draw(path: Path, generator: np.random.Generator, spot: int) -> None:
    """Write a noisy grey image with a spot that is brighter by this number of grey levels, or darker below 0."""
    image = generator.integers(120, 136, (SIDE, SIDE))
    image[6:9, 6:9] += spot
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image.astype(np.uint8))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of noisy grey parts; the defective ones have a bright or a dark spot."""
    root = tmp_path_factory.mktemp("data") / "parts"
    generator = np.random.default_rng(0)
    for index in range(12):
        draw(root / f"train/good/{index:02}.png", generator, 0)
    for index in range(20):
        draw(root / f"val/good/{index:02}.png", generator, 0)
        draw(root / f"val/spot/{index:02}.png", generator, (80 + index) * (-1) ** index)
    return root


def write_source(path: Path, data: Path, *, sensitive: bool = False, policy: Policy | None = None) -> Path:
    """Write a calibrated float32 model file that was trained on the dataset's training images."""
    trained = [fingerprint_bytes(image.read_bytes()) for image in (data / "train").rglob("*.png")]
    write_layered(path, trained, sensitive=sensitive)
    calibrate(path, data, policy=policy)
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """A calibrated float32 model file."""
    return write_source(tmp_path_factory.mktemp("model") / "part.onnx", data, policy=Youden())


@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_reduced_file_judges_by_its_own_scores(source: Path, data: Path, tmp_path: Path, precision: str) -> None:
    """The new file has the source's policy, recipe and training images, and a threshold from its own scores."""
    reduced = quantize(source, tmp_path / "small.onnx", precision, data)
    old, new = read_model_file(source), read_model_file(tmp_path / "small.onnx")
    assert new.info.name == "small"
    assert new.training_images == old.training_images
    assert new.info.preprocess == old.info.preprocess
    assert new.info.calibration is not None
    assert old.info.calibration is not None
    assert new.info.calibration.rule == old.info.calibration.rule
    assert new.info.calibration.images == old.info.calibration.images
    scores = Inspector(new).run(np.full((1, SIDE, SIDE, 1), 99, np.uint8)).score
    assert scores.dtype == np.float32
    assert new.info.threshold is not None
    assert old.info.threshold is not None
    assert new.info.threshold.score == pytest.approx(old.info.threshold.score, rel=0.2)
    assert new.info.threshold.score != old.info.threshold.score
    assert new.info.history == ()
    provenance = new.info.provenance
    assert provenance.precision == precision
    assert provenance.agreement == reduced.agreement
    assert (reduced.agreement.images, reduced.agreement.flips) == (40, 0)
    assert reduced.agreement.reference == f"part@{old.sha256[:12]}"


def test_int8_graph_is_plain_onnx_in_8_bits(source: Path, data: Path, tmp_path: Path) -> None:
    """Weights are int8 for each channel, activations int8 or uint8 from 0, and the score's own layers in float."""
    quantize(source, tmp_path / "small.onnx", "int8", data)
    model = onnx.load(tmp_path / "small.onnx")
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    assert tensors["encoder.weight_quantized"].data_type == onnx.TensorProto.INT8
    assert list(tensors["encoder.weight_scale"].dims) == [4]
    weights = np.abs(numpy_helper.to_array(tensors["encoder.weight_quantized"]).astype(int))
    assert weights.max() == 64  # two products of more overflow 16 bits, on processors that add them there
    offsets = {name: numpy_helper.to_array(value) for name, value in tensors.items() if name.endswith("_zero_point")}
    assert {value.dtype.name for value in offsets.values()} == {"int8", "uint8"}
    assert not any(value.any() for value in offsets.values())
    assert {node.domain for node in model.graph.node} == {""}
    assert [item.domain for item in model.opset_import] == [""]
    (smooth,) = (node for node in model.graph.node if node.name == "smooth")
    assert smooth.input[1] == "smoothing"
    assert {entry.key.partition(".")[0] for entry in model.metadata_props} == {"onspect"}


def test_layers_that_decisions_cannot_bear_stay_in_float(data: Path, tmp_path: Path) -> None:
    """Layers that ruin the verdicts in 8 bits are left in float32, the file says which, and the others are reduced."""
    source = write_source(tmp_path / "part.onnx", data, sensitive=True)
    reduced = quantize(source, tmp_path / "small.onnx", "int8", data)
    assert reduced.agreement.flips == 0
    assert reduced.info.provenance.float_layers == ("encoder", "decoder")
    assert reduced.info.provenance.reduced_layers == ("front.0", "front.1")
    harms = {choice.layer.name: choice.harm for choice in reduced.layers}
    assert min(harms["encoder"], harms["decoder"]) > 10 * max(harms["front.0"], harms["front.1"])


@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_a_file_with_a_head_is_refused(data: Path, tmp_path: Path, precision: str) -> None:
    """The layers of a head of 0.1.0 are not converted: one sentence, and no file."""
    info = make_info(score="head")
    info = dataclasses.replace(info, network=dataclasses.replace(info.network, head=(8, 16)))
    (tmp_path / "part.onnx").write_bytes(stamp(build_graph().SerializeToString(), info, []))
    file = read_model_file(tmp_path / "part.onnx")
    with pytest.raises(
        ExportError, match=r"has the score 'head', .* convert it with the release that made it, or train again"
    ):
        quantize_model(file, tmp_path / "small.onnx", precision, data, np.zeros((1, 16, 16, 1), np.uint8))
    assert not (tmp_path / "small.onnx").exists()


@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_too_many_flips_write_nothing(
    source: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    """If more verdicts flip than are allowed, an older file of the name stays unchanged."""
    (tmp_path / "small.onnx").write_bytes(b"older")
    original = agreement.score_like
    monkeypatch.setattr("onspect.export.precision.search.score_like", lambda *arguments: -original(*arguments))
    with pytest.raises(ExportError, match=r"of 40 verdicts differ from those of part@.* nothing was written"):
        quantize(source, tmp_path / "small.onnx", precision, data)
    assert (tmp_path / "small.onnx").read_bytes() == b"older"
    assert [path.name for path in tmp_path.iterdir()] == ["small.onnx"]


def test_flips_can_be_allowed(source: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a larger allowance the file is kept, and says how many verdicts flipped."""
    found = Agreement("part@0", "highest F1", images=40, flips=3, carried=4, shift=0.1)
    monkeypatch.setattr("onspect.export.precision.search.compare", lambda *_: found)
    with pytest.raises(ExportError, match="and 2 are allowed"):
        quantize(source, tmp_path / "small.onnx", "fp16", data, max_flips=2)
    assert quantize(source, tmp_path / "small.onnx", "fp16", data, max_flips=3).info.provenance.agreement == found


def test_an_uncalibrated_file_stays_so(source: Path, data: Path, tmp_path: Path) -> None:
    """A source without a threshold is compared by the default policy, and the new file has no threshold either."""
    bare = write_layered(tmp_path / "bare.onnx", read_model_file(source).training_images)
    reduced = quantize(bare, tmp_path / "small.onnx", "fp16", data)
    assert reduced.agreement.policy == "highest F1"
    assert reduced.info.threshold is None


def test_other_images_than_the_calibration_s_are_refused(source: Path, data: Path, tmp_path: Path) -> None:
    """Images on which the source's threshold was not chosen are refused: recalibration would mix two changes."""
    generator = np.random.default_rng(1)
    for index in range(4):
        draw(tmp_path / f"other/val/good/{index}.png", generator, 0)
        draw(tmp_path / f"other/val/spot/{index}.png", generator, 80)
    with pytest.raises(DatasetError, match=r"the 8 images of .*other.* are not the 40 of 'parts'.*onspect calibrate"):
        quantize(source, tmp_path / "small.onnx", "fp16", tmp_path / "other")


def test_int8_needs_training_images(source: Path, data: Path, tmp_path: Path) -> None:
    """A dataset that has none of the training images cannot give the ranges of values, and is refused."""
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/val").symlink_to(data / "val")
    draw(tmp_path / "parts/train/good/0.png", np.random.default_rng(2), 0)
    with pytest.raises(DatasetError, match=r"contains no training image of .*part.onnx'"):
        quantize(source, tmp_path / "small.onnx", "int8", tmp_path / "parts")


def test_bad_sources_and_targets(source: Path, data: Path, tmp_path: Path) -> None:
    """The source itself, a name without .onnx, and a file that is reduced already are refused."""
    with pytest.raises(OutputError, match="is the file to be converted"):
        quantize(source, source, "fp16", data)
    with pytest.raises(OutputError, match=r"must end in \.onnx"):
        quantize(source, tmp_path / "small.bin", "fp16", data)
    quantize(source, tmp_path / "small.onnx", "fp16", data)
    with pytest.raises(ExportError, match="is already in fp16"):
        quantize(tmp_path / "small.onnx", tmp_path / "smaller.onnx", "int8", data)


def test_a_graph_without_layers_is_refused(
    uncalibrated: Path, tmp_path: Path, write_image: Callable[..., Path]
) -> None:
    """A graph that has nothing to reduce is refused, not written as if something had been reduced."""
    write_image(tmp_path / "parts/val/good/0.png", 120)
    write_image(tmp_path / "parts/val/good/1.png", 130)
    with pytest.raises(ExportError, match="no layer whose precision could be lowered"):
        quantize(uncalibrated, tmp_path / "small.onnx", "fp16", tmp_path / "parts")


def test_command_reports_layers_and_verdicts(onspect: Run, source: Path, data: Path, tmp_path: Path) -> None:
    """The command prints each layer's harm and precision, and the verdicts; the card shows them again."""
    result = onspect("export", source, "-o", tmp_path / "small.onnx", "--int8", "--data", data)
    assert result.exit_code == 0, result.output
    assert [line.split()[0] for line in result.stdout.splitlines()[1:3]] == ["encoder", "decoder"]
    kept = len(read_model_file(tmp_path / "small.onnx").info.provenance.reduced_layers)
    assert f"{kept} of 2 in int8, with" in result.stdout
    assert "0 of 40 verdicts differ from part@" in result.stdout
    assert "times that of float32 here" in result.stdout
    assert "next:" not in result.stderr
    card = onspect("info", tmp_path / "small.onnx").stdout
    assert f"precision    int8 in {kept} of 2 layers" in card
    assert "verdicts     0 of 40 verdicts differ" in card


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--int8", "--fp16", "--data", "x"], "exclude each other"),
        (["--int8"], "--int8 needs --data DATA"),
        (["--max-flips", "2"], "--max-flips needs --data DATA"),
        (["--data", "x"], "is a model file already; convert it with --int8 or --fp16"),
        (["--fp16", "--data", "x", "--score", "mse"], "--score, --mask and --parts are for a trained run"),
        (["--fp16", "--data", "x", "--parts"], "--score, --mask and --parts are for a trained run"),
    ],
)
def test_options_that_do_not_go_together(
    onspect: Run, source: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    """Options that exclude each other or miss another are usage errors, and nothing is written."""
    result = onspect("export", source, "-o", tmp_path / "small.onnx", *options)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not list(tmp_path.iterdir())


def test_review_band_and_regions_are_chosen_anew(data: Path, tmp_path: Path) -> None:
    """A source with a review band and a least area of regions makes a file with both, by the same rules."""
    source = write_source(tmp_path / "part.onnx", data)
    regions = RegionDemand(area=Rule("region_area", value=3.0))
    calibrate(source, data, policy=MaxFpr(0.1), band=ReviewShare(0.2), regions=regions)
    reduced = quantize(source, tmp_path / "small.onnx", "fp16", data)
    old, new = read_model_file(source).info, reduced.info
    assert old.threshold is not None
    assert new.threshold is not None
    assert new.threshold.review == pytest.approx(old.threshold.review, rel=0.01)
    assert new.threshold.area == 3
    assert new.calibration is not None
    assert old.calibration is not None
    assert new.calibration.review_rule == old.calibration.review_rule
    assert reduced.agreement.policy == "false rejects at most 10%; review of at most 20% of good parts"


def test_an_older_file_names_no_policy(source: Path, data: Path, tmp_path: Path) -> None:
    """A file whose calibration left no policy is refused with the command that gives it one."""
    file = read_model_file(source)
    assert file.info.calibration is not None
    older = dataclasses.replace(file.info, calibration=dataclasses.replace(file.info.calibration, rule=None))
    with pytest.raises(Exception, match="does not say how its threshold was chosen"):
        agreement.find_reference(dataclasses.replace(file, info=older), data)
