import dataclasses
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest
import torch
from click.testing import CliRunner
from numpy.typing import NDArray
from torch import nn

from onspect.calibration.regions import PixelScores, RegionDemand
from onspect.calibration.scores import Observation, ScoredImage
from onspect.export import onnx_writer
from onspect.export.graph import InspectionGraph, fit_normal_error
from onspect.export.layers import FillIgnored
from onspect.export.scores import SCORES, Reduction
from onspect.runtime.cli import main
from onspect.runtime.dataset.folder import LabelledImage
from onspect.runtime.errors import ChoiceError
from onspect.runtime.images.roi_mask import read_mask
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.model.card import describe
from onspect.runtime.model.file import read_model_file
from onspect.runtime.model.schema import Preprocess, Rule, SourceLimits
from onspect.training.autoencoder.networks import Decoder, Encoder
from onspect.training.config import NetworkConfig

MakeRun = Callable[..., Path]

HEIGHT, WIDTH = 36, 52
MASK = np.ones((HEIGHT, WIDTH), np.bool_)
MASK[8:20, 30:] = False
NAMES = tuple(name for name, spec in SCORES.items() if spec.is_by_place)


def draw_images(count: int = 3) -> NDArray[np.uint8]:
    """Return drawn images of the size of the mask."""
    return np.random.default_rng(9).integers(0, 200, (count, HEIGHT, WIDTH, 3), np.uint8)


def build_graph(name: str, mask: NDArray[np.bool_] | None = MASK) -> InspectionGraph:
    """Return a graph with untrained weights, with a mask."""
    torch.manual_seed(3)
    network = NetworkConfig("cae", HEIGHT, WIDTH, 3, (4, 8), (2, 1), 12, 6, SCORES[name].expects)
    decoder = Decoder(network, torch.full((3,), 0.5))
    places = None if mask is None else torch.from_numpy(mask)
    graph = InspectionGraph(
        Encoder(network), decoder, network, SCORES[name].define(max(network.height, network.width)), mask=places
    ).eval()
    if SCORES[name].is_relative:
        fit_normal_error(graph, torch.from_numpy(draw_images()))
    return graph


def run_graph(graph: InspectionGraph, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return scores and error maps."""
    with torch.no_grad():
        score, error_map, _, _ = graph(torch.from_numpy(images))
    return score.numpy(), error_map.numpy()


def write_mask(path: Path, picture: NDArray[np.uint8] | NDArray[np.uint16]) -> Path:
    """Write a picture as an image file and return its path."""
    assert cv2.imwrite(str(path), picture)
    return path


def half(height: int, width: int) -> NDArray[np.uint8]:
    """Return a mask's picture, white on the left and black on the right."""
    picture = np.full((height, width), 255, np.uint8)
    picture[:, width // 2 :] = 0
    return picture


@pytest.mark.parametrize("name", NAMES)
def test_what_ignored_places_show_changes_nothing(name: str) -> None:
    """Ignored places do not change a bit of score and error map, and the map is 0 there."""
    graph, images = build_graph(name), draw_images()
    spoiled = images.copy()
    spoiled[:, ~MASK] = 255
    (score, error_map), (again, map_again) = run_graph(graph, images), run_graph(graph, spoiled)
    assert np.array_equal(score, again)
    assert np.array_equal(error_map, map_again)
    assert not error_map[:, ~MASK].any()
    assert (error_map[:, MASK] > 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_spot_in_an_inspected_place_raises_the_score(name: str) -> None:
    """The same spot beside the ignored places is seen, right up to their border."""
    graph, images = build_graph(name), np.full((1, HEIGHT, WIDTH, 3), 128, np.uint8)
    for values in graph.decoder.parameters():
        nn.init.zeros_(values)  # it is grey everywhere, so that only the spot has an error
    spotted = images.copy()
    spotted[:, 10:14, 26:30] = 255
    assert (run_graph(graph, spotted)[0] > 1.5 * run_graph(graph, images)[0]).all()


def test_a_reduction_without_a_branch_is_an_error() -> None:
    """A reduction that the graph does not compute gives no score, rather than the one of another reduction."""
    graph = build_graph("mse")
    graph.spec = dataclasses.replace(graph.spec, reduction=Reduction.HIGHEST)
    with pytest.raises(AssertionError, match=r"no branch for Reduction\.HIGHEST"):
        run_graph(graph, draw_images())


def test_mse_is_the_mean_over_inspected_pixels() -> None:
    """The score is the mean of the squared error over the inspected pixels alone."""
    score, error_map = run_graph(build_graph("mse"), draw_images())
    np.testing.assert_allclose(score, error_map[:, MASK].mean(axis=1), rtol=1e-5)


def test_the_border_is_not_dimmed() -> None:
    """Errors that are alike everywhere are alike after smoothing, beside the border too."""
    graph = build_graph("peak")
    assert graph.inspected is not None
    with torch.no_grad():
        error_map = graph.inspected(torch.full((1, 1, HEIGHT, WIDTH), 0.25), graph.smooth)[0, 0].numpy()
    np.testing.assert_allclose(error_map, 0.25 * MASK, rtol=1e-5)


def test_normal_error_is_that_of_inspected_places() -> None:
    """The normal error is a mean over inspected places, plus a tenth of the overall mean."""
    peak, relative = build_graph("peak"), build_graph("relative")
    mean = run_graph(peak, draw_images())[1].mean(axis=0)
    expected = mean + 0.1 * mean[MASK].mean()
    np.testing.assert_allclose(relative.normal_error[0, 0].numpy()[MASK], expected[MASK], rtol=1e-4)


@pytest.mark.parametrize(("height", "width"), [(5, 7), (36, 52), (300, 20)])
def test_ignored_places_are_painted_over(height: int, width: int) -> None:
    """Ignored places get the tone of the inspected area next to it, and black far away."""
    mask = torch.zeros(height, width, dtype=torch.bool)
    mask[:2, :2] = True
    planes = torch.where(mask, torch.full((1, 3, height, width), 0.3), 1.0)
    painted = FillIgnored(mask)(planes)
    torch.testing.assert_close(painted[:, :, :3, :3], torch.full((1, 3, 3, 3), 0.3))
    assert height < 300 or not painted[:, :, 100:].any()


@pytest.mark.slow
def test_an_exported_file_has_the_mask(make_run: MakeRun, tmp_path: Path) -> None:
    """The file's graph ignores the black places of a picture of another size, and its metadata and card say so."""
    path = write_mask(tmp_path / "mask.png", half(280, 280))
    result = CliRunner().invoke(
        main, ["export", str(make_run()), "-o", str(tmp_path / "a.onnx"), "--score", "relative", "--mask", str(path)]
    )
    assert result.exit_code == 0, result.output
    assert "50.00% of the image is inspected" in result.stderr
    file = read_model_file(tmp_path / "a.onnx")
    assert file.info.score.inspected == 0.5
    assert "the 50.00% of the image that a mask leaves" in describe(file)
    inspector = Inspector(file)
    images = np.random.default_rng(9).integers(0, 200, (2, 28, 28, 1), np.uint8)
    spoiled = images.copy()
    spoiled[:, :, 14:] = 255
    before, after = inspector.run(images), inspector.run(spoiled)
    assert np.array_equal(before.score, after.score)
    assert np.array_equal(before.error_map, after.error_map)
    assert not before.error_map[:, :, 14:].any()


@pytest.mark.slow
def test_without_a_mask_all_is_inspected(make_file: MakeRun) -> None:
    """A file without a mask says that all of the image is inspected, and its card does not mention a mask."""
    file = read_model_file(make_file())
    assert file.info.score.inspected == 1.0
    assert "that a mask leaves" not in describe(file)


@pytest.mark.slow
def test_the_encoder_s_file_ignores_the_same_places(make_run: MakeRun, tmp_path: Path) -> None:
    """With --parts the encoder alone gives the latent vector that the model file gives."""
    path = write_mask(tmp_path / "mask.png", half(28, 28))
    onnx_writer.export(make_run(), tmp_path / "a.onnx", score="mse", parts=True, mask=path)
    images = np.random.default_rng(9).integers(0, 256, (2, 28, 28, 1), np.uint8)
    whole, encoder = (onnxruntime.InferenceSession(tmp_path / f"a{part}.onnx") for part in ("", ".encoder"))
    found, expected = (session.run(["latent"], {"image": images})[0] for session in (encoder, whole))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


WHOLE = half(300, 400)


def recipe(width: tuple[int, int] | None = (400, 400), height: tuple[int, int] | None = (300, 300)) -> Preprocess:
    """Return a model's working size, 40 x 30 pixels, and its accepted sizes."""
    return Preprocess(40, 30, 1, 65535, SourceLimits((1,), width, height))


def test_a_place_is_inspected_where_more_than_half_is_white(tmp_path: Path) -> None:
    """A place is inspected if more than half of its pixels are white, not at exactly half."""
    picture = np.zeros((300, 400), np.uint8)
    picture[:5, :10] = 255
    picture[:6, 10:20] = 255
    mask = read_mask(write_mask(tmp_path / "mask.png", picture), recipe())
    assert mask.shape == (30, 40)
    assert np.argwhere(mask).tolist() == [[0, 1]]


@pytest.mark.parametrize(
    "picture",
    [
        half(300, 400),
        half(150, 200),
        half(30, 40),
        cv2.merge([half(300, 400)] * 3),
        half(300, 400).astype(np.uint16) * 257,
    ],
    ids=["as large", "half as large", "working size", "colour", "16 bits"],
)
def test_a_mask_of_any_size_and_depth_is_read(tmp_path: Path, picture: NDArray[np.uint8]) -> None:
    """Size, channels and depth of the picture make no difference, nor do training images of several sizes."""
    path = write_mask(tmp_path / "mask.png", picture)
    for accepted in (recipe(), recipe((200, 800), (150, 600))):
        assert np.array_equal(read_mask(path, accepted), half(30, 40) == 255)


@pytest.mark.parametrize(
    ("picture", "accepted", "message"),
    [
        (np.zeros((300, 400), np.uint8), recipe(), "leaves nothing to inspect .* 0% to 0% white.*paint"),
        (half(300, 400) // 255, recipe(), "leaves nothing to inspect .* 0% to 0% white.*paint"),
        (np.full((300, 400), 255, np.uint8), recipe(), "ignores nothing .* 100% to 100% white.*paint"),
        (half(300, 300), recipe(), "300x300 pixels and the training images are 400x300: draw it"),
        (np.full((300, 400), 128, np.uint8), recipe(), "not black and white: 100% of its pixels are grey; paint"),
        (half(300, 400), recipe(None, None), "--any-size"),
        (half(300, 400), recipe((100, 800), (150, 600)), "differ in shape .*100 to 800.*train on images of one"),
    ],
)
def test_a_mask_that_cannot_be_used_is_refused(
    tmp_path: Path, picture: NDArray[np.uint8], accepted: Preprocess, message: str
) -> None:
    """A wrong mask gives one sentence with its name, the value and the remedy."""
    path = write_mask(tmp_path / "spot.png", picture)
    with pytest.raises(ChoiceError, match=f"the mask '.*spot.png'.*{message}"):
        read_mask(path, accepted)


@pytest.mark.parametrize(
    ("score", "content", "message"),
    [
        ("mse", b"words", "the mask .* not a JPEG, PNG"),
        ("mse", None, "the mask .* cannot read the file"),
        ("whitened", b"words", "'whitened', which judges the image as a whole .* choose mse, .* or "),
    ],
)
def test_nothing_is_written_with_a_mask_that_cannot_be_used(
    make_run: MakeRun, tmp_path: Path, score: str, content: bytes | None, message: str
) -> None:
    """A mask that cannot be read, or that the score cannot honour, ends the export before a file is there."""
    mask = tmp_path / "mask.png"
    if content is not None:
        mask.write_bytes(content)
    with pytest.raises(ChoiceError, match=message):
        onnx_writer.export(make_run(), tmp_path / "new" / "a.onnx", score=score, mask=mask)
    assert not (tmp_path / "new").exists()


def test_a_mask_is_for_a_run(tmp_path: Path) -> None:
    """A model file that is converted has its mask in the graph already, so --mask is a usage error there."""
    (tmp_path / "a.onnx").write_bytes(b"")
    arguments = [str(tmp_path / "a.onnx"), "-o", str(tmp_path / "b.onnx"), "--int8", "--data", str(tmp_path)]
    result = CliRunner().invoke(main, ["export", *arguments, "--mask", "mask.png"])
    assert result.exit_code == 2
    assert "--mask" in result.stderr


def test_ignored_places_do_not_lower_the_map_s_cut() -> None:
    """The cut that a share of pixels may reach is taken among inspected pixels, not among the zeros beside them."""
    random = np.random.default_rng(1)
    inspected = random.random((10, 100)).astype(np.float32) + 0.1
    whole, part = PixelScores(RegionDemand()), PixelScores(RegionDemand(), 0.25)
    for scores, error_map in ((whole, inspected), (part, np.vstack([inspected, np.zeros((30, 100), np.float32)]))):
        image = LabelledImage(Path("a.png"), "good")
        scores.add(Observation(ScoredImage(image, "", score=0.0), error_map, 10, 100))
    rule = Rule("pixel_fpr", rate=0.01)
    assert part.find_cut(rule) == whole.find_cut(rule)
