import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from click.testing import Result
from numpy.typing import NDArray

from onspect.export.fitted_scores import ModelOutputs, PpcaDistance, fit_measures
from onspect.export.graph import InspectionGraph
from onspect.export.onnx_writer import export
from onspect.export.scores import SCORES
from onspect.runtime.errors import ChoiceError, TrainingError
from onspect.runtime.inspection.inspector import Inspector
from onspect.training.checkpoint import TrainedModel, load_trained, read_tensors
from onspect.training.to_onnx import convert

MakeRun = Callable[..., Path]
Images = NDArray[np.uint8]


def draw(count: int, seed: int) -> Images:
    """Dim images with one smooth bright bump each, mono 28 px."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:28, :28]
    places = random.uniform(10, 18, (count, 2, 1, 1))
    bumps = 150 * np.exp(-((x - places[:, 0]) ** 2 + (y - places[:, 1]) ** 2) / 30) + random.normal(
        40, 2, (count, 28, 28)
    )
    return np.asarray(bumps.clip(0, 255).astype(np.uint8)[..., None])


@pytest.fixture(scope="module")
def models(make_run: MakeRun) -> dict[str, TrainedModel]:
    """A barely trained run of each variant."""
    return {variant: load_trained(make_run(variant)) for variant in ("cae", "vae", "aae")}


def score(model: TrainedModel, name: str, fitted: Images, held_out: Images, images: Images) -> NDArray[np.float32]:
    """Fit a measure and return the scores that its graph gives images."""
    measure = fit_measures(model, [name], fitted, held_out)[name]
    network = model.record.config.network
    graph = InspectionGraph(model.encoder, model.decoder, network, SCORES[name].define(28), measure=measure).eval()
    with torch.no_grad():
        return np.asarray(graph(torch.from_numpy(images))[0].numpy())


EXPORTED = {"probability": ("vae",), "critic": ("aae",), "combined": ("cae", 24, 40, 3)}
"""Runs of the scores that the command exports in a test; the others are converted alone, which takes less time."""

FITTED = [name for name, spec in SCORES.items() if spec.is_fitted and name not in EXPORTED]


@pytest.mark.slow
@pytest.mark.parametrize("name", FITTED)
def test_a_fitted_score_is_one_number_of_zero_or_more(models: dict[str, TrainedModel], name: str) -> None:
    """Each row can be fitted; each image has one finite score of 0 or more, alone or with others, and in ONNX too."""
    model = models[SCORES[name].variants[0]]
    images = np.concatenate([draw(3, 2), np.zeros((1, 28, 28, 1), np.uint8), np.full((1, 28, 28, 1), 255, np.uint8)])
    measure = fit_measures(model, [name], draw(80, 0), draw(40, 1))[name]
    network = model.record.config.network
    graph = InspectionGraph(model.encoder, model.decoder, network, SCORES[name].define(28), measure=measure).eval()
    file = convert(graph, images, "image", ["score", "error_map", "reconstruction", "latent"])
    (together,) = onnxruntime.InferenceSession(file).run(["score"], {"image": images})
    assert together.shape == (5,)
    assert np.isfinite(together).all()
    assert (together >= 0).all()
    with torch.no_grad():
        alone = [graph(torch.from_numpy(image[None]))[0].numpy() for image in images]
    np.testing.assert_allclose(np.concatenate(alone), together, rtol=1e-3, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["whitened", "latent", "contrast", "statistics", "combined"])
def test_what_was_never_seen_scores_higher(models: dict[str, TrainedModel], name: str) -> None:
    """A measure fitted to one kind of image puts noise above every new image of that kind."""
    noise = np.random.default_rng(9).integers(0, 256, (8, 28, 28, 1), np.uint8)
    scores = score(models["cae"], name, draw(300, 0), draw(40, 1), np.concatenate([draw(30, 2), noise]))
    assert scores[:30].max() < scores[30:].min()
    assert scores.min() >= 0


def test_distance_keeps_its_digits_where_one_direction_says_nearly_all() -> None:
    """The residual outside the known directions is small and has a large weight: float32 is exact enough for it."""
    random = torch.Generator().manual_seed(0)
    vectors = torch.randn(400, 256, generator=random).double()
    vectors += 1000.0 * torch.randn(400, 1, generator=random) * torch.randn(256, generator=random)
    distance = PpcaDistance(lambda view: view.latent, vectors)

    def measure(module: PpcaDistance, rows: torch.Tensor) -> torch.Tensor:
        return module(ModelOutputs(rows, rows, rows, None))

    single = measure(distance, vectors[:50].float())
    exact = measure(distance.double(), vectors[:50].float().double())
    torch.testing.assert_close(single.double(), exact, rtol=2e-5, atol=0.0)


@pytest.mark.slow
def test_distances_of_good_images_are_about_one(models: dict[str, TrainedModel]) -> None:
    """Distances are squared, per dimension, in the good images' own spread: about 1, less the ridge."""
    for name in ("whitened", "contrast", "latent", "statistics"):
        images = draw(300, 0)
        assert 0.6 < score(models["cae"], name, images, images[:0], images).mean() <= 1.01, name


def test_normalised_forgives_complex_images(models: dict[str, TrainedModel]) -> None:
    """An image of twice the contrast, whose error is four times as large, has about the same normalised error."""
    model = models["cae"]
    still = dataclasses.replace(model, decoder=torch.nn.Sequential(Still()))  # type: ignore[arg-type]
    random = np.random.default_rng(3)
    pattern = random.choice([-1, 1], (1, 28, 28, 1))
    images = np.asarray((128 + pattern * np.array([30, 60]).reshape(2, 1, 1, 1)).astype(np.uint8))
    scores = score(still, "normalised", images, images[:0], images)
    assert scores[0] == pytest.approx(scores[1], rel=0.1)


class Still(torch.nn.Module):
    """Reconstructs every image as even grey."""

    def forward(self, latent: torch.Tensor) -> torch.Tensor:
        return torch.full((len(latent), 1, 28, 28), 128 / 255)


def test_kl_is_equation_four(models: dict[str, TrainedModel]) -> None:
    """The VAE's kl is the divergence of Eq. 4 for each image."""
    model, images = models["vae"], draw(5, 0)
    planes = torch.from_numpy(images).float().div(255).permute(0, 3, 1, 2)
    with torch.no_grad():
        mean, log_sigma = model.encoder(planes)
        expected = -0.5 * (1 + 2 * log_sigma - mean**2 - torch.exp(2 * log_sigma)).sum(1)
    np.testing.assert_allclose(score(model, "kl", images, images[:0], images), expected.numpy(), rtol=1e-5)


def test_probability_averages_over_draws(models: dict[str, TrainedModel]) -> None:
    """The VAE's probability is the error over draws of z, more than that of the mean of z, and the same every time."""
    model, images = models["vae"], draw(5, 0)
    twice = [score(model, "probability", images, images[:0], images) for _ in range(2)]
    network = model.record.config.network
    with torch.no_grad():
        graph = InspectionGraph(model.encoder, model.decoder, network, SCORES["mse"].define(28)).eval()
        mse = graph(torch.from_numpy(images))[0].numpy()
    np.testing.assert_array_equal(twice[0], twice[1])
    assert (twice[0] > mse).all()


def test_critic_orders_as_the_network_does(models: dict[str, TrainedModel]) -> None:
    """The AAE's critic score falls where the critic's own output rises, over all images."""
    model = models["aae"]
    assert model.critic is not None
    images = np.concatenate([draw(20, 0), np.random.default_rng(1).integers(0, 256, (20, 28, 28, 1), np.uint8)])
    scores = score(model, "critic", images, images[:0], images)
    planes = torch.from_numpy(images).float().div(255).permute(0, 3, 1, 2)
    with torch.no_grad():
        trust = model.critic.double()(model.encoder(planes)[0].double())[:, 0].numpy()
    model.critic.float()
    np.testing.assert_array_equal(np.argsort(scores, kind="stable"), np.argsort(-trust, kind="stable"))


@pytest.mark.parametrize(("name", "variant"), [("kl", "cae"), ("probability", "aae"), ("critic", "vae")])
def test_a_variant_without_the_measure(models: dict[str, TrainedModel], name: str, variant: str) -> None:
    """A measure that belongs to another variant is refused, and its own is named."""
    owner = " and ".join(map(str.upper, SCORES[name].variants))
    with pytest.raises(ChoiceError, match=rf"'{name}', which only the {owner} has; this is a {variant.upper()}"):
        SCORES[name].check(models[variant].record.config)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), EXPORTED.items())
def test_exported_file_holds_the_measure(
    make_run: MakeRun,
    make_file: MakeRun,
    onspect: Callable[..., Result],
    tmp_path: Path,
    name: str,
    kind: tuple[Any, ...],
) -> None:
    """Export fits the measure to the run's images, mono or not; the file alone gives its score, and the map of mse."""
    result = onspect("export", make_run(*kind), "-o", tmp_path / "part.onnx", "--score", name)
    assert result.exit_code == 0, result.output
    inspector = Inspector(tmp_path / "part.onnx")
    shape = kind[1:] or (28, 28, 1)
    images = draw(3, 0) if shape == (28, 28, 1) else np.random.default_rng(0).integers(0, 255, (3, *shape), np.uint8)
    found = inspector.run(images)
    assert inspector.info.score.name == name
    assert np.isfinite(found.score).all()
    plain = Inspector(make_file(*kind)).run(images)
    np.testing.assert_allclose(found.error_map, plain.error_map, rtol=1e-4, atol=1e-7)


def test_images_that_are_gone(make_run: MakeRun, tmp_path: Path) -> None:
    """Without the folder that it was trained on a run cannot have a measure, and the folder is named."""
    run = tmp_path / "run"
    shutil.copytree(make_run("cae"), run)
    record = json.loads((run / "config.json").read_bytes())
    record["data"]["folder"] = str(tmp_path / "gone")
    (run / "config.json").write_text(json.dumps(record))
    with pytest.raises(TrainingError, match=r"gone' that the run .* began with is gone"):
        export(run, tmp_path / "part.onnx", score="latent")
    assert not (tmp_path / "part.onnx").exists()


def test_critic_is_kept_with_the_weights(make_run: MakeRun) -> None:
    """The weights of the best epoch contain the AAE's critic, so that its score belongs to the same epoch."""
    tensors, _ = read_tensors(make_run("aae") / "weights.safetensors")
    assert {name.partition(".")[0] for name in tensors} == {"encoder", "decoder", "critic"}
