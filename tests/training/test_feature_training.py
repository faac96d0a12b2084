"""Autoencoders of the features of a frozen network."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from onspect.runtime.cli import main
from onspect.runtime.errors import ChoiceError, DatasetError, TrainingError
from onspect.training import session
from onspect.training.autoencoder.loop import TrainingProgress
from onspect.training.autoencoder.networks import Decoder, Encoder
from onspect.training.checkpoint import read_record
from onspect.training.config import design_feature_network
from onspect.training.features import find_backbone, make_base
from onspect.training.features.places import PlaceExtractor, flatten_places, make_extractor
from onspect.training.summary import describe

from ..feature_runs import HEIGHT, WIDTH, draw_part, write_backbone, write_parts

CPU = session.Devices(accelerator="cpu")
VARIANTS = ("cae", "vae", "aae")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The base file of a tiny frozen network."""
    return make_base(str(write_backbone(tmp_path_factory.mktemp("backbone") / "tiny.onnx")))


@pytest.fixture
def parts(tmp_path: Path, base: bytes, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A dataset folder of grey parts; runs take the tiny network."""
    monkeypatch.setattr(session, "make_base", lambda: base)
    return write_parts(tmp_path / "parts")


def options(**changes: Any) -> session.TrainOptions:
    return session.TrainOptions(
        **({"on": "features", "size": (WIDTH, HEIGHT), "epochs": 3, "batch_size": 64} | changes)
    )


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "weights.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def draw_good(count: int) -> np.ndarray:
    return np.stack([draw_part(seed)[:, :, None] for seed in range(count)])


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_training_lowers_the_error(parts: Path, tmp_path: Path, variant: str) -> None:
    """Each variant's held-out error falls; config, log, preview and the graph of the features are written."""
    session.train(parts, tmp_path / "run", options(variant=variant, epochs=20, learning_rate=3e-3), devices=CPU)
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert log[-1]["held_out"] < 0.9 * log[0]["held_out"]
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"config.json", "features.onnx", "weights.safetensors", "samples.safetensors", "preview.png"} <= names
    record = read_record(tmp_path / "run")
    assert (record.data.recipe.width, record.data.recipe.height) == (WIDTH, HEIGHT)
    assert record.config.backbone == "efficientnet-lite0"
    assert record.config.network.filters == ()
    assert f"{variant.upper()} of the features" in describe(record)


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_resume_gives_the_uninterrupted_result(parts: Path, tmp_path: Path, variant: str) -> None:
    """A run stopped in the middle of an epoch continues to exactly the weights of an uninterrupted run."""
    chosen = options(variant=variant, seed=3)
    session.train(parts, tmp_path / "whole", chosen, devices=CPU)

    def stop(moment: TrainingProgress) -> None:
        if moment.step == 7:
            signal.raise_signal(signal.SIGINT)

    outcome = session.train(parts, tmp_path / "cut", chosen, devices=CPU, callbacks=session.Callbacks(step=stop))
    assert outcome.reason == "interrupted"
    assert session.resume(tmp_path / "cut", devices=CPU).reason == "finished"
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))


def test_resume_without_the_graph_of_the_features(parts: Path, tmp_path: Path) -> None:
    """It names the missing file and what to do."""
    session.train(parts, tmp_path / "run", options(epochs=1), devices=CPU)
    (tmp_path / "run" / "features.onnx").unlink()
    with pytest.raises(TrainingError, match=r"cannot read .*features\.onnx.*put it back"):
        session.resume(tmp_path / "run", devices=CPU)


def test_features_are_decorrelated_and_of_unit_spread(base: bytes) -> None:
    """Over the images that they were learned from, components have mean 0, spread 1 and no correlation."""
    images = draw_good(12)
    features = PlaceExtractor.open(make_extractor(base, images, seed=0)).extract(images)
    assert features.shape[2:] == (HEIGHT // 16, WIDTH // 16)
    places = features.transpose(0, 2, 3, 1).reshape(-1, features.shape[1]).astype(np.float64)
    np.testing.assert_allclose(places.mean(axis=0), 0.0, atol=0.02)
    np.testing.assert_allclose(np.cov(places.T, bias=True), np.eye(places.shape[1]), atol=0.05)


def test_features_do_not_depend_on_the_other_images(base: bytes) -> None:
    """So a resumed run sees the same ones, whichever images it reads first."""
    images = draw_good(5)
    extractor = PlaceExtractor.open(make_extractor(base, images, seed=0))
    np.testing.assert_array_equal(extractor.extract(images)[3:], extractor.extract(images[3:]))


def test_grey_equals_the_same_picture_in_colour(base: bytes) -> None:
    """The first convolution takes one plane as it would take three equal ones."""
    grey = draw_good(8)
    mono = PlaceExtractor.open(make_extractor(base, grey, seed=0)).extract(grey)
    colour = np.repeat(grey, 3, axis=3)
    found = PlaceExtractor.open(make_extractor(base, colour, seed=0)).extract(colour)
    np.testing.assert_allclose(found, mono, atol=1e-2)


def test_a_place_is_judged_like_a_convolution_of_1x1(base: bytes) -> None:
    """Encoder and decoder of places do what convolutions of 1 x 1 with their weights do."""
    torch.manual_seed(0)
    network = design_feature_network("cae", 10)
    encoder, decoder = Encoder(network), Decoder(network, torch.zeros(1))
    features = torch.randn(2, 10, 3, 4)
    places = torch.from_numpy(flatten_places(features.numpy())).float().permute(0, 3, 1, 2)
    found = decoder(encoder(places)[0]).reshape(2, 3, 4, 10).permute(0, 3, 1, 2)
    planes = torch.from_numpy(features.numpy().astype(np.float16)).float()
    layers = [encoder.hidden[0], encoder.latent, decoder.hidden[0], decoder.map[0]]
    for number, layer in enumerate(layers):
        planes = torch.nn.functional.conv2d(planes, layer.weight[:, :, None, None], layer.bias)
        planes = torch.nn.functional.leaky_relu(planes) if number in (0, 2) else planes
    torch.testing.assert_close(found, planes)


def test_the_same_features_everywhere(tmp_path: Path) -> None:
    blind = make_base(str(write_backbone(tmp_path / "blind.onnx", gain=0.0)))
    with pytest.raises(DatasetError, match="the features of all places in the images are equal"):
        make_extractor(blind, draw_good(4), seed=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"on": "edges"}, "on is 'edges'; choose from pixels, features"),
        ({"on": "pixels", "preset": "features"}, "preset 'features' cannot be chosen"),
        ({"preset": "fast"}, "preset is for autoencoders of pixels"),
        ({"tile": (32, 32)}, "tile is for autoencoders of pixels"),
        ({"augment": ("shift",)}, "augment is for autoencoders of pixels"),
        ({"size": (100, 64)}, "the working size is 100x64.*give --size 96x64"),
    ],
)
def test_choices_that_do_not_go_together(parts: Path, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ChoiceError, match=message):
        session.train(parts, tmp_path / "run", options(**changes), devices=CPU)
    assert not (tmp_path / "run").exists()


def test_command(parts: Path, tmp_path: Path) -> None:
    """`onspect train --on features` trains, and refuses a preset in one sentence."""
    run = tmp_path / "run"
    words = ["train", str(parts), "--on", "features", "-m", "vae", "--epochs", "1", "--device", "cpu", "-o", str(run)]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    assert "VAE of the features of efficientnet-lite0 on 14 good images" in done.stderr
    assert read_record(run).data.recipe.height == 128  # small parts are enlarged, as `onspect teach` does
    refused = CliRunner().invoke(main, [*words[:-1], str(tmp_path / "other"), "--preset", "fast"])
    assert refused.exit_code == 2
    assert "leave it out where features are reconstructed" in refused.stderr


def test_the_default_network_is_in_the_installed_package() -> None:
    assert find_backbone("efficientnet-lite0").licence == "Apache-2.0"
