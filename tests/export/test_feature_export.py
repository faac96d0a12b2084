"""Autoencoders of features as model files."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from click.testing import CliRunner

from onspect.calibration.calibration import calibrate
from onspect.export import onnx_writer
from onspect.export.features import FeatureGraph, fit_normal_error
from onspect.runtime.cli import main
from onspect.runtime.errors import ChoiceError, ModelFileError
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.model.card import describe
from onspect.runtime.model.file import read_model_file
from onspect.training import session
from onspect.training.autoencoder.networks import Decoder, Encoder
from onspect.training.checkpoint import load_trained
from onspect.training.config import design_feature_network
from onspect.training.features import make_base
from onspect.training.features.places import PlaceExtractor

from ..feature_runs import HEIGHT, WIDTH, draw_part, write_backbone, write_parts
from ..sharing import Share

VARIANTS = ("cae", "vae", "aae")


@pytest.fixture(scope="module")
def parts(share: Share) -> Path:
    """A dataset folder of grey parts, some of them scratched."""
    return share("feature-parts", lambda folder: write_parts(folder / "parts")) / "parts"


@pytest.fixture(scope="module")
def runs(share: Share, parts: Path) -> dict[str, Path]:
    """A run of each variant, with a tiny frozen network."""
    folder = share("feature-runs", lambda folder: train_all(folder, parts))
    return {variant: folder / variant for variant in VARIANTS}


def train_all(folder: Path, parts: Path) -> None:
    """Train each variant."""
    base = make_base(str(write_backbone(folder / "tiny.onnx")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "make_base", lambda: base)
        for variant in VARIANTS:
            chosen = session.TrainOptions(
                variant=variant, on="features", size=(WIDTH, HEIGHT), epochs=30, batch_size=64
            )
            session.train(parts, folder / variant, chosen, devices=session.Devices(accelerator="cpu"))


@pytest.fixture(scope="module")
def model(share: Share, runs: dict[str, Path], parts: Path) -> Path:
    """A calibrated model file of the CAE."""

    def make(folder: Path) -> None:
        onnx_writer.export(runs["cae"], folder / "part.onnx")
        calibrate(folder / "part.onnx", parts)

    return share("feature-model", make) / "part.onnx"


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_outputs_are_those_of_the_trained_network(runs: dict[str, Path], tmp_path: Path, variant: str) -> None:
    """Score, error map and latent of the file are those that torch computes from the frozen network's features."""
    exported = onnx_writer.export(runs[variant], tmp_path / "part.onnx")
    assert exported.parity.difference <= 1e-4
    trained = load_trained(runs[variant])
    assert trained.extractor is not None
    images = np.stack([draw_part(seed, scratched=seed % 2 == 1)[:, :, None] for seed in range(70, 75)])
    extractor = PlaceExtractor.open(trained.extractor)
    features = torch.from_numpy(extractor.extract(images))
    graph = FeatureGraph(trained.encoder, trained.decoder, *features.shape[2:]).eval()
    fit_normal_error(graph, torch.from_numpy(extractor.extract(trained.samples.numpy())))
    with torch.no_grad():
        expected = [output.numpy() for output in graph(features)]
    session_ = onnxruntime.InferenceSession(str(tmp_path / "part.onnx"), providers=["CPUExecutionProvider"])
    found = session_.run(["score", "error_map", "latent"], {"image": images})
    assert [output.name for output in session_.get_outputs()] == ["score", "error_map", "latent"]
    assert found[1].shape == (5, HEIGHT, WIDTH)
    assert found[2].shape == (5, HEIGHT // 16 * WIDTH // 16 * 16)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-3, atol=2e-3)


def test_score_and_map_follow_the_errors_of_places() -> None:
    """The map is the error of a place; the score is its highest place, smoothed, relative to good parts there."""
    torch.manual_seed(1)
    network = design_feature_network("cae", 12, latent=3)
    graph = FeatureGraph(Encoder(network), Decoder(network, torch.zeros(1)), 2, 3).eval()
    good, odd = torch.randn(6, 12, 2, 3), torch.randn(1, 12, 2, 3)
    fit_normal_error(graph, good)

    def errors(features: torch.Tensor) -> np.ndarray:
        places = features.permute(0, 2, 3, 1).reshape(-1, 12, 1, 1)
        found = (places - graph.decoder(graph.encoder(places)[0])).square().mean(dim=(1, 2, 3))
        return np.asarray(found.reshape(-1, 2, 3).detach().numpy(), np.float64)

    normal = errors(good).mean(axis=0)
    padded = np.pad(errors(odd)[0] / (normal + 0.1 * normal.mean()), 1, mode="edge")
    smooth = [padded[row : row + 3, column : column + 3].mean() for row in range(2) for column in range(3)]
    with torch.no_grad():
        score, error_map, latent = graph(odd)
    np.testing.assert_allclose(score.item(), max(smooth), rtol=1e-5)
    np.testing.assert_allclose(error_map[0, :8, :8].numpy(), errors(odd)[0, 0, 0], rtol=1e-5)
    assert (error_map.shape, latent.shape) == ((1, 32, 48), (1, 18))


@pytest.mark.slow
def test_scratches_score_higher(model: Path, parts: Path) -> None:
    """A scratch has a higher score, and its place the highest error."""
    inspector = Inspector(model)
    good, scratched = (
        inspector.run(np.stack([draw_part(9000 + seed, scratched=bad)[:, :, None] for seed in range(8)]))
        for bad in (False, True)
    )
    assert np.median(scratched.score) > good.score.max()


@pytest.mark.slow
def test_the_file_describes_itself(model: Path) -> None:
    info = read_model_file(model).info
    assert (info.network.variant, info.network.backbone, info.network.filters) == ("cae", "efficientnet-lite0", ())
    assert (info.score.name, info.score.is_peak) == ("features", False)
    assert "of the features of efficientnet-lite0 at each place, hidden 64" in describe(read_model_file(model))


@pytest.mark.slow
def test_there_is_no_reconstruction(model: Path) -> None:
    inspector = Inspector(model)
    batch = draw_part(1)[None, :, :, None]
    assert not inspector.reconstructs
    with pytest.raises(ModelFileError, match="has no autoencoder of images"):
        inspector.reconstruct(batch)
    assert inspector.encode(batch).shape == (1, HEIGHT // 16 * WIDTH // 16 * 16)


@pytest.mark.slow
def test_commands_work_on_the_file(model: Path, parts: Path, tmp_path: Path) -> None:
    """Evaluate writes a report without reconstructions, and score judges images."""
    done = CliRunner().invoke(main, ["evaluate", str(model), str(parts), "-o", str(tmp_path / "report")])
    assert done.exit_code == 0, done.output
    page = next((tmp_path / "report").glob("*.html")).read_text()
    assert 'alt="error"' in page
    assert "reconstruction" not in page
    done = CliRunner().invoke(main, ["score", str(model), str(parts / "test")])
    assert done.exit_code in (0, 1), done.output
    assert done.stdout.count('"verdict"') == 12


@pytest.mark.slow
def test_colour(tmp_path: Path) -> None:
    """A run on colour images has a file that takes colour."""
    parts = write_parts(tmp_path / "parts", good=6, colour=True)
    base = make_base(str(write_backbone(tmp_path / "tiny.onnx")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "make_base", lambda: base)
        chosen = session.TrainOptions(on="features", size=(WIDTH, HEIGHT), epochs=1)
        session.train(parts, tmp_path / "run", chosen, devices=session.Devices(accelerator="cpu"))
    exported = onnx_writer.export(tmp_path / "run", tmp_path / "part.onnx")
    image = cv2.imread(str(parts / "train" / "good" / "000.png"))
    assert exported.info.preprocess.channels == 3
    assert Inspector(tmp_path / "part.onnx").run(image[None]).score[0] > 0.0


@pytest.mark.slow
def test_the_graph_has_no_traces_of_this_machine(model: Path, runs: dict[str, Path]) -> None:
    for path in (model, runs["cae"] / "features.onnx"):
        content = onnx.load(path).SerializeToString()
        assert str(Path.home()).encode() not in content
        assert b"site-packages" not in content


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"score": "relative"}, "score is 'relative', and an autoencoder of features has the score features alone"),
        ({"score": "combined"}, "score is 'combined', and an autoencoder of features has the score features alone"),
        ({"parts": True}, "--parts is for autoencoders of pixels"),
    ],
)
def test_choices_that_features_do_not_have(
    runs: dict[str, Path], tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ChoiceError, match=message):
        onnx_writer.export(runs["cae"], tmp_path / "part.onnx", **changes)
    assert not (tmp_path / "part.onnx").exists()


@pytest.mark.slow
def test_a_mask_is_refused(runs: dict[str, Path], tmp_path: Path) -> None:
    mask = np.full((HEIGHT, WIDTH), 255, np.uint8)
    mask[:10] = 0
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    with pytest.raises(ChoiceError, match="a mask is for autoencoders of pixels"):
        onnx_writer.export(runs["cae"], tmp_path / "part.onnx", mask=tmp_path / "mask.png")


def test_pixels_do_not_have_the_score_of_features(make_run: object, tmp_path: Path) -> None:
    with pytest.raises(ChoiceError, match="which only a run of 'onspect train --on features' has"):
        onnx_writer.export(make_run("cae"), tmp_path / "part.onnx", score="features")  # type: ignore[operator]
