import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from click.testing import Result

from onspect.demo.parts import DEFECT_KINDS, draw_dataset
from onspect.export.graph import InspectionGraph
from onspect.runtime.dataset.folder import labelled_images
from onspect.runtime.images.decode import read_image
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.model.file import read_model_file
from onspect.training.checkpoint import load_trained

from ..sharing import Share

pytestmark = pytest.mark.slow

Run = Callable[..., Result]

DATA = Path(os.environ.get("ONSPECT_DATA", "/nonexistent"))
"""A folder with public data sets, magnetic_tile among them."""


def succeed(result: Result) -> Result:
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def job(share: Share, onspect: Run) -> Path:
    """A folder in which small drawn parts went through train, export, calibrate, evaluate and score."""
    return share("whole-job", lambda folder: do_job(folder, onspect))


def do_job(folder: Path, onspect: Run) -> None:
    """Do the whole job in a folder."""
    torch.set_num_threads(1)
    draw_dataset(folder / "parts", seed=3, train=100, good=8, defective=4, size=64)
    train = ["train", folder / "parts", "-o", folder / "run", "--epochs", "25", "--device", "cpu"]
    succeed(onspect(*train, "--learning-rate", "0.003", "--preset", "balanced"))
    succeed(
        onspect(
            *("export", folder / "run", "-o", folder / "part.onnx", "--data", folder / "parts"), "--score", "relative"
        )
    )
    succeed(onspect("calibrate", folder / "part.onnx", folder / "parts"))
    succeed(onspect("evaluate", folder / "part.onnx", folder / "parts", "-o", folder / "report"))
    score = ["score", folder / "part.onnx", folder / "parts" / "test", "-o", folder / "verdicts.jsonl"]
    succeed(onspect(*score, "--overlays", folder / "overlays"))


def test_defects_are_told_from_good_parts(job: Path) -> None:
    """Even a small network after a few epochs ranks drawn defects above good parts, and places them."""
    metrics = json.loads((job / "report" / "metrics.json").read_text())
    text = json.dumps(metrics)
    assert metrics["image"]["auroc"] > 0.8, text
    assert metrics["pixel"]["auroc"] > 0.8, text


def test_every_image_has_a_verdict_and_an_overlay(job: Path) -> None:
    """Each test image has one line, in order, and one picture in a folder of its kind."""
    verdicts = [json.loads(line) for line in (job / "verdicts.jsonl").read_text().splitlines()]
    images = sorted((job / "parts" / "test").rglob("*.png"))
    assert [verdict["source"] for verdict in verdicts] == [str(path) for path in images]
    assert [verdict["index"] for verdict in verdicts] == list(range(len(images)))
    pictures = sorted(path.relative_to(job / "overlays") for path in (job / "overlays").rglob("*.png"))
    assert pictures == [path.relative_to(job / "parts" / "test") for path in images]


def test_ng_is_where_a_region_is(job: Path) -> None:
    """With a score that is its map's maximum a part is ng exactly where its map has a region."""
    verdicts = [json.loads(line) for line in (job / "verdicts.jsonl").read_text().splitlines()]
    assert {verdict["verdict"] for verdict in verdicts} == {"ok", "ng"}
    assert all((verdict["verdict"] == "ng") == bool(verdict["regions"]) for verdict in verdicts)


def test_verdicts_are_those_of_the_python_api(job: Path) -> None:
    """The command and `Inspector.inspect` give an image the same score, bit for bit."""
    inspector = Inspector(job / "part.onnx")
    for line in (job / "verdicts.jsonl").read_text().splitlines()[:6]:
        expected = json.loads(line)
        verdict = inspector.inspect(read_image(expected["source"]))
        assert (verdict.score, verdict.verdict) == (expected["score"], expected["verdict"])


def test_scores_agree_with_the_trained_model_on_validation_images(job: Path) -> None:
    """The calibrated file scores every validation image as the trained model does, to 1e-4 of the value."""
    model, file = load_trained(job / "run"), read_model_file(job / "part.onnx")
    inspector = Inspector(file)
    network = model.record.config.network
    graph = InspectionGraph(model.encoder, model.decoder, network, file.info.score).eval()
    for tensor in onnx.load(job / "part.onnx").graph.initializer:
        if "normal_error" in tensor.name:
            normal_error = torch.from_numpy(np.array(onnx.numpy_helper.to_array(tensor)))
            graph.normal_error.copy_(normal_error.reshape(graph.normal_error.shape))
    paths = [image.path for image in labelled_images(job / "parts", "val")]
    batch = np.stack([inspector.prepare(read_image(path)) for path in paths])
    with torch.no_grad():
        trained = graph(torch.from_numpy(batch))[0].numpy()
    np.testing.assert_allclose(inspector.run(batch).score, trained, rtol=1e-4)
    assert len(paths) == 8 + 4 * len(DEFECT_KINDS)


def test_calibration_left_the_graph_alone(job: Path, onspect: Run, tmp_path: Path) -> None:
    """Exported again, the graph has the checksum of the calibrated file's."""
    succeed(onspect("export", job / "run", "-o", tmp_path / "again.onnx", "--score", "relative"))
    calibrated, again = read_model_file(job / "part.onnx").info, read_model_file(tmp_path / "again.onnx").info
    assert calibrated.graph_sha256 == again.graph_sha256
    assert (calibrated.threshold is None, again.threshold is None) == (False, True)


def test_training_images_are_refused_for_calibration(job: Path, onspect: Run, tmp_path: Path) -> None:
    """A flat folder of the training images is refused; the share held out of training is taken when requested."""
    good = job / "parts" / "train" / "good"
    flat = tmp_path / "flat.onnx"
    flat.write_bytes((job / "part.onnx").read_bytes())
    refused = onspect("calibrate", flat, good)
    assert refused.exit_code == 1
    assert "90 of 100 images were trained on" in refused.stderr
    assert "10 good" in succeed(onspect("calibrate", flat, good, "--skip-training-images")).stdout


def link_some(data: Path, folder: Path, every: int) -> Path:
    """Make a dataset of links to every n-th image of each folder of another."""
    for kind in (path for split in ("train", "val") for path in (data / split).iterdir()):
        place = folder / kind.parent.name / kind.name
        place.mkdir(parents=True)
        for path in sorted(kind.iterdir())[::every]:
            (place / path.name).symlink_to(path)
    return folder


@pytest.mark.skipif(not (DATA / "magnetic_tile").is_dir(), reason="ONSPECT_DATA names no folder with magnetic_tile")
@pytest.mark.parametrize(("variant", "every"), [("cae", 2), ("vae", 4), ("aae", 4)])
def test_real_tiles_go_through(tmp_path: Path, onspect: Run, variant: str, every: int) -> None:
    """Magnetic tiles of many sizes, one in two or four, train, export within the tolerance, and calibrate."""
    tiles = link_some(DATA / "magnetic_tile", tmp_path / "tiles", every)
    good, defective = (len(list(tiles.glob(f"val/{kinds}/*"))) for kinds in ("good", "[!g]*"))
    samples = min(256, len(list(tiles.glob("train/good/*"))))
    train = ["train", tiles, "-o", tmp_path / "run", "--preset", "fast", "--epochs", "1", "-m", variant]
    succeed(onspect(*train, "--batch-size", "64", "--device", "cpu"))
    succeed(onspect("export", tmp_path / "run", "-o", tmp_path / "tile.onnx", "--data", tiles, "--score", "relative"))
    info = read_model_file(tmp_path / "tile.onnx").info
    assert info.provenance.parity <= 1e-4
    assert info.provenance.parity_images == samples + good + defective
    assert every > 2 or (samples, good, defective) == (256, 30, 60)
    assert f"{good} good, {defective} defective" in succeed(onspect("calibrate", tmp_path / "tile.onnx", tiles)).stdout
