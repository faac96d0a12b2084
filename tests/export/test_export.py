import dataclasses
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from click.testing import CliRunner, Result

from onspect.export import onnx_writer
from onspect.export import parity as parity_module
from onspect.export.layers import GaussianSmoothing
from onspect.export.scores import SCORES, own_score
from onspect.runtime.cli import main
from onspect.runtime.dataset.near_duplicates import dct_features, hash_look
from onspect.runtime.errors import ChoiceError, DatasetError, ExportError, OutputError, TrainingError
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.model.file import read_model_file
from onspect.training import session
from onspect.training.checkpoint import load_trained

MakeRun = Callable[..., Path]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "height", "width", "channels"),
    [
        ("cae", 28, 28, 1),
        ("vae", 28, 28, 1),
        ("aae", 28, 28, 1),
        ("cae", 32, 32, 3),
    ],
)
def test_scores_agree_with_torch(
    make_run: MakeRun, make_file: MakeRun, variant: str, height: int, width: int, channels: int
) -> None:
    """The file's mean-squared-error score is Equation 2 of the trained encoder and decoder, to 1e-4 of its value."""
    run, file = make_run(variant, height, width, channels), make_file(variant, height, width, channels)
    images = np.random.default_rng(9).integers(0, 255, (5, height, width, channels), np.uint8)
    model = load_trained(run)
    with torch.no_grad():
        planes = torch.from_numpy(images).float().div(255).permute(0, 3, 1, 2)
        trained = (planes - model.decoder(model.encoder(planes)[0])).square().mean(dim=(1, 2, 3)).numpy()
    np.testing.assert_allclose(Inspector(file).run(images).score, trained, rtol=1e-4)


@pytest.mark.slow
def test_outputs_have_the_documented_shapes(make_file: MakeRun) -> None:
    """The graph takes uint8 NHWC with any N and gives score, error_map, reconstruction and latent."""
    session = onnxruntime.InferenceSession(make_file("cae", 32, 32, 3))
    for count in (1, 3):
        outputs = session.run(None, {"image": np.zeros((count, 32, 32, 3), np.uint8)})
        assert [value.shape for value in outputs] == [(count,), (count, 32, 32), (count, 3, 32, 32), (count, 20)]
        assert all(value.dtype == np.float32 for value in outputs)


@pytest.mark.slow
def test_mono_images_are_not_transposed(make_file: MakeRun) -> None:
    """With one channel the layouts are the same bytes, so the graph has no Transpose."""
    assert "Transpose" not in {node.op_type for node in onnx.load(make_file()).graph.node}


@pytest.mark.slow
def test_peak_is_the_smoothed_map_s_maximum(make_file: MakeRun) -> None:
    """With the score ``peak`` the score is the error map's highest value."""
    images = np.random.default_rng(9).integers(0, 255, (3, 28, 28, 1), np.uint8)
    scored = Inspector(make_file(score="peak")).run(images)
    assert np.array_equal(scored.score, scored.error_map.max(axis=(1, 2)))


def test_default_of_the_autoencoder_alone(make_run: MakeRun) -> None:
    """An autoencoder's own score is the mean squared error for the paper's networks, the relative peak for others."""
    for size, score in (((28, 28), "mse"), ((48, 40), "relative")):
        assert own_score(load_trained(make_run("cae", *size)).record.config).name == score


@pytest.mark.slow
def test_default_score(make_run: MakeRun, tmp_path: Path) -> None:
    """Without --score the file has a memory beside the autoencoder, whose outputs are those of a file without one."""
    result = CliRunner().invoke(main, ["export", str(make_run("cae", 48, 40)), "-o", str(tmp_path / "a.onnx")])
    assert result.exit_code == 0, result.output
    assert "score memory\n" in result.stderr
    written = read_model_file(tmp_path / "a.onnx").info
    assert written.network is not None
    assert written.memory is not None
    assert (written.score.name, written.score.why, written.network.head) == ("memory", "", ())
    assert written.memory.by_whole  # it has a side below 64 pixels
    onnx_writer.export(make_run("cae", 48, 40), tmp_path / "b.onnx", score="mse")
    preprocess = written.preprocess
    images = np.random.default_rng(3).integers(0, 255, (2, preprocess.height, preprocess.width, 1), np.uint8)
    both, alone = Inspector(tmp_path / "a.onnx"), Inspector(tmp_path / "b.onnx")
    assert np.array_equal(both.reconstruct(images), alone.reconstruct(images))
    assert np.allclose(both.encode(images), alone.encode(images), atol=1e-5)
    assert both.run(images).error_map.shape == alone.run(images).error_map.shape


@pytest.mark.slow
@pytest.mark.parametrize(("height", "width", "channels"), [(40, 56, 1), (24, 30, 3)])
def test_error_is_held_against_the_expected_one(
    make_run: MakeRun, make_file: MakeRun, height: int, width: int, channels: int
) -> None:
    """A run's map is the smoothed error over the expected one, over what good parts show; its peak is the score."""
    run, file = (make("cae", height, width, channels) for make in (make_run, partial(make_file, score="expected")))
    score = read_model_file(file).info.score
    assert (score.name, score.smoothing, score.is_peak) == ("expected", max(height, width) / 64, True)
    images = np.random.default_rng(9).integers(0, 255, (3, height, width, channels), np.uint8)
    scored = Inspector(file).run(images)
    model = load_trained(run)

    def smooth_ratio(pixels: torch.Tensor) -> torch.Tensor:
        planes = pixels.float().div(255).permute(0, 3, 1, 2)
        with torch.no_grad():
            reconstruction, log_expected = model.decoder.expect(model.encoder(planes)[0])
        assert log_expected is not None
        ratio = (planes - reconstruction).square().mean(dim=1, keepdim=True) / log_expected.exp()
        return GaussianSmoothing(score.smoothing, height, width)(ratio)[:, 0]

    good = smooth_ratio(model.samples).mean(dim=0)
    expected = smooth_ratio(torch.from_numpy(images)) / (good + 0.1 * good.mean())
    np.testing.assert_allclose(scored.error_map, expected.numpy(), rtol=1e-3)
    assert np.array_equal(scored.score, scored.error_map.max(axis=(1, 2)))


@pytest.mark.slow
def test_a_run_of_an_older_release_keeps_its_score(
    train_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A decoder without the second output is judged relatively, and nothing is left where the other is requested."""
    make = session.design_network
    monkeypatch.setattr(
        session, "design_network", lambda *some, **named: dataclasses.replace(make(*some, **named), expects=False)
    )
    run = train_run(tmp_path, "cae", 16, 20)
    config = json.loads((run / "config.json").read_bytes())
    assert not config["config"]["network"].pop("expects")
    (run / "config.json").write_text(json.dumps(config))
    with pytest.raises(ChoiceError, match=r"not predict its error \(preset balanced, or .*; choose .* preset fast"):
        onnx_writer.export(run, tmp_path / "part.onnx", score="expected")
    assert not (tmp_path / "part.onnx").exists()
    assert onnx_writer.export(run, tmp_path / "part.onnx", score="relative").info.score.name == "relative"


@pytest.mark.slow
def test_a_run_with_a_head_is_refused(make_run: MakeRun, tmp_path: Path) -> None:
    """A run that 0.1.0 trained with a head is refused in one sentence; one without a head is read."""
    run = tmp_path / "run"
    shutil.copytree(make_run("cae", 48, 40), run)
    config = json.loads((run / "config.json").read_bytes())
    config["config"]["head"] = None
    (run / "config.json").write_text(json.dumps(config))
    assert onnx_writer.export(run, tmp_path / "part.onnx", score="relative").info.score.name == "relative"
    config["config"]["head"] = {"filters": [8, 16, 32], "width": 24, "steps": 1500}
    (run / "config.json").write_text(json.dumps(config))
    for command in (["export", str(run), "-o", str(tmp_path / "b.onnx")], ["train", "--resume", "-o", str(run)]):
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 1
        assert "trained with a head by onspect 0.1.0, which this release does not support: train again" in result.stderr
    assert not (tmp_path / "b.onnx").exists()


def test_head_is_no_score(make_run: MakeRun, tmp_path: Path) -> None:
    """The score of 0.1.0 is refused like any unknown one, and nothing is left."""
    with pytest.raises(ChoiceError, match=f"score is 'head'; choose one of {', '.join(SCORES)}"):
        onnx_writer.export(make_run(), tmp_path / "part.onnx", score="head")
    assert not list(tmp_path.iterdir())


def test_smoothing_is_opencv_s_gaussian() -> None:
    """The map is smoothed as cv2.GaussianBlur does with repeated edges."""
    error_map = np.random.default_rng(0).random((20, 30), np.float32)
    smooth = GaussianSmoothing(1.5, 20, 30)
    expected = cv2.GaussianBlur(error_map, (2 * smooth.radius + 1,) * 2, 1.5, borderType=cv2.BORDER_REPLICATE)
    result = smooth(torch.from_numpy(error_map)[None, None])[0, 0].numpy()
    np.testing.assert_allclose(result, expected, rtol=1e-4)


@pytest.mark.slow
def test_file_says_where_it_comes_from(make_run: MakeRun, make_file: MakeRun) -> None:
    """The metadata carry the network, the recipe, provenance and training images, and no path of the machine."""
    run = make_run("aae")
    file = read_model_file(make_file("aae"))
    record = load_trained(run).record
    assert file.info.name == "washer"
    assert file.info.network.variant == "aae"
    assert file.info.network.filters == (16, 32, 64, 64, 16)
    assert file.info.preprocess == record.data.recipe
    assert file.training_images == set(record.data.images)
    assert not file.training_images & set(record.data.held_out)
    assert file.info.threshold is None
    assert str(run.parent.parent).encode() not in file.data


@pytest.mark.slow
def test_split_parts_compose_to_the_whole(make_run: MakeRun, tmp_path: Path) -> None:
    """Encoder and decoder files, one after the other, give the whole file's reconstruction."""
    exported = onnx_writer.export(make_run(), tmp_path / "part.onnx", score="mse", parts=True)
    assert [path.name for path in exported.paths] == ["part.onnx", "part.encoder.onnx", "part.decoder.onnx"]
    whole, encoder, decoder = (onnxruntime.InferenceSession(path) for path in exported.paths)
    images = np.random.default_rng(9).integers(0, 255, (3, 28, 28, 1), np.uint8)
    (latent,) = encoder.run(None, {"image": images})
    (parts,) = decoder.run(None, {"latent": latent})
    np.testing.assert_allclose(parts, whole.run(["reconstruction"], {"image": images})[0], atol=1e-6)


@pytest.mark.slow
def test_a_file_that_differs_is_not_left(make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores beyond the tolerance are refused with both values, and an older file of that name stays."""
    (tmp_path / "part.onnx").write_bytes(b"older")
    original = parity_module._scores_by_session
    monkeypatch.setattr(parity_module, "_scores_by_session", lambda *arguments: original(*arguments) * 1.001)
    with pytest.raises(ExportError, match=r"differ from those of the trained model by up to .*1e-03|1\.0.e-03"):
        onnx_writer.export(make_run(), tmp_path / "part.onnx", score="mse")
    assert (tmp_path / "part.onnx").read_bytes() == b"older"
    assert [path.name for path in tmp_path.iterdir()] == ["part.onnx"]


@pytest.mark.slow
def test_scores_that_are_no_numbers_are_refused(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A NaN among the scores is a difference, not a pass."""
    monkeypatch.setattr(
        parity_module, "_scores_by_session", lambda session, images, batch: np.full(len(images), np.nan, np.float32)
    )
    with pytest.raises(ExportError, match="nan"):
        onnx_writer.export(make_run(), tmp_path / "part.onnx", score="mse")


def draw_labelled(folder: Path, height: int = 28, width: int = 28) -> Path:
    """Write five good images of noise and three black ones with a defect as a dataset's val/ and return the dataset."""
    generator = np.random.default_rng(4)
    for kind, count, white in (("good", 5, 255), ("black", 3, 20)):
        (folder / "val" / kind).mkdir(parents=True)
        for index in range(count):
            cv2.imwrite(
                str(folder / f"val/{kind}/{index}.png"), generator.integers(0, white, (height, width), np.uint8)
            )
    return folder


@pytest.mark.slow
def test_decisions_can_be_compared(make_run: MakeRun, tmp_path: Path) -> None:
    """A dataset's validation images join the run's own, and the file says how many verdicts differ on them."""
    data = draw_labelled(tmp_path / "parts")
    exported = onnx_writer.export(make_run(), tmp_path / "part.onnx", score="mse", data=data)
    assert exported.parity.images == 12 + 8
    agreement = read_model_file(tmp_path / "part.onnx").info.provenance.agreement
    assert agreement is not None
    assert (agreement.reference, agreement.images, agreement.flips) == ("the trained model", 8, 0)
    cv2.imwrite(str(data / "val/good/odd.png"), np.zeros((50, 28), np.uint8))
    with pytest.raises(DatasetError, match=r"odd\.png"):
        onnx_writer.export(make_run(), tmp_path / "part.onnx", score="mse", data=data)


@pytest.mark.slow
def test_a_flipped_verdict_refuses_the_file(make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores within the tolerance whose verdicts differ are refused anyway."""
    data = draw_labelled(tmp_path / "parts")
    original = parity_module.check_parity

    def reverse(*arguments: Any) -> parity_module.Parity:
        found = original(*arguments)
        return dataclasses.replace(found, exported=-found.exported)

    monkeypatch.setattr(onnx_writer, "check_parity", reverse)
    with pytest.raises(ExportError, match="of 8 verdicts differ from those of the trained model"):
        onnx_writer.export(make_run(), tmp_path / "part.onnx", score="mse", data=data)
    assert not (tmp_path / "part.onnx").exists()


@pytest.mark.slow
def test_an_expected_error_bears_half_precision(make_run: MakeRun, make_file: MakeRun, tmp_path: Path) -> None:
    """The expected error spans orders of magnitude, and its scores in float16 agree to a hundredth."""
    data = draw_labelled(tmp_path / "parts", 40, 56)
    run, whole = make_run("cae", 40, 56), make_file("cae", 40, 56, score="expected")
    reduced = onnx_writer.export_quantized(run, tmp_path / "half.onnx", "fp16", data, score="expected", max_flips=8)
    assert reduced.info.score.name == "expected"
    images = np.random.default_rng(9).integers(0, 255, (3, 40, 56, 1), np.uint8)
    scores = [Inspector(path).run(images).score for path in (whole, tmp_path / "half.onnx")]
    np.testing.assert_allclose(scores[1], scores[0], rtol=1e-2)


@pytest.mark.slow
def test_a_run_is_exported_in_lower_precision(make_run: MakeRun, tmp_path: Path) -> None:
    """A run becomes an int8 file without a threshold, its ranges taken from the run's own images."""
    data = draw_labelled(tmp_path / "parts")
    reduced = onnx_writer.export_quantized(make_run(), tmp_path / "part.onnx", "int8", data, max_flips=8)
    assert reduced.info.provenance.precision == "int8"
    assert reduced.info.threshold is None
    assert reduced.agreement.images == 8
    assert len(reduced.layers) == 14


@pytest.mark.slow
def test_a_reduced_run_says_that_it_has_no_memory(
    onspect: Callable[..., Result], make_run: MakeRun, tmp_path: Path
) -> None:
    """The command names the score and how to keep the memory, unless a score was requested."""
    data, part = draw_labelled(tmp_path / "parts"), tmp_path / "part.onnx"
    command = ("export", make_run(), "-o", part, "--fp16", "--data", data, "--max-flips", 8)
    result = onspect(*command)
    assert result.exit_code == 0, result.output
    score = read_model_file(part).info.score.name
    assert f"has the score {score!r} of its autoencoder and no memory" in result.stderr
    assert "then convert that file" in result.stderr
    assert "no memory" not in onspect(*command, "--score", score).stderr


def test_bad_names_and_runs(make_run: MakeRun, tmp_path: Path) -> None:
    """An output without .onnx, an unknown score, and a folder that is not a run are refused with their names."""
    with pytest.raises(OutputError, match=r"part\.bin.*\.onnx"):
        onnx_writer.export(make_run(), tmp_path / "part.bin")
    with pytest.raises(ValueError, match="sharpness"):
        onnx_writer.export(make_run(), tmp_path / "part.onnx", score="sharpness")
    with pytest.raises(TrainingError, match="not a training run"):
        onnx_writer.export(tmp_path, tmp_path / "part.onnx")


@pytest.mark.parametrize("name", ["weights.safetensors", "samples.safetensors", "config.json"])
def test_damaged_run(make_run: MakeRun, tmp_path: Path, name: str) -> None:
    """A run with a truncated file is refused with the file's name."""
    run = tmp_path / "run"
    run.mkdir()
    for path in make_run().glob("*.*"):
        (run / path.name).write_bytes(path.read_bytes()[: None if path.name != name else path.stat().st_size // 2])
    with pytest.raises(TrainingError, match=name):
        onnx_writer.export(run, tmp_path / "part.onnx")


@pytest.mark.slow
def test_command_writes_and_says_what_is_next(make_run: MakeRun, tmp_path: Path) -> None:
    """The command names the file, the agreement and the next step."""
    result = CliRunner().invoke(main, ["export", str(make_run()), "-o", str(tmp_path / "part.onnx")])
    assert result.exit_code == 0, result.output
    assert "scores agree with the trained model" in result.stderr
    assert f"next: onspect calibrate {tmp_path / 'part.onnx'} DATA" in result.stderr


@pytest.mark.slow
def test_command_names_the_labelled_folder(make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the run's folder has a val split too, the next command names it, from where the user is."""
    monkeypatch.chdir(tmp_path)
    run = shutil.copytree(make_run(), tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    config["data"]["folder"] = str(tmp_path / "my parts")
    (run / "config.json").write_text(json.dumps(config))
    (tmp_path / "my parts" / "val" / "good").mkdir(parents=True)
    result = CliRunner().invoke(main, ["export", "run", "-o", "part.onnx", "--score", "mse"])
    assert "next: onspect calibrate part.onnx 'my parts'" in result.stderr


@pytest.mark.slow
def test_file_knows_what_its_training_images_look_like(tmp_path: Path) -> None:
    """From some images on, training keeps their perceptual hashes, and the exported file carries them."""
    random = np.random.default_rng(0)
    (tmp_path / "data").mkdir()
    for index in range(20):
        cv2.imwrite(str(tmp_path / f"data/{index}.png"), random.integers(0, 255, (28, 28), np.uint8))
    options = session.TrainOptions(variant="cae", epochs=1)
    session.train(tmp_path / "data", tmp_path / "run", options, devices=session.Devices(accelerator="cpu"))
    onnx_writer.export(tmp_path / "run", tmp_path / "part.onnx", score="mse")
    file = read_model_file(tmp_path / "part.onnx")
    looks = file.looks
    assert looks is not None
    assert len(looks.hashes) == file.info.provenance.training_images
    images = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)[:, :, None] for path in (tmp_path / "data").iterdir()]
    assert set(looks.hashes) < {hash_look(dct_features(np.asarray(image)), looks) for image in images}
