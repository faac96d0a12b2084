from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest
import torch
from click.testing import CliRunner
from numpy.typing import NDArray
from torch import nn

from onspect.export import onnx_writer
from onspect.export.graph import InspectionGraph, fit_normal_error
from onspect.export.precision.search import quantize
from onspect.export.scores import SCORES, Reduction
from onspect.runtime.cli import main
from onspect.runtime.errors import ChoiceError
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.model.card import describe
from onspect.runtime.model.file import read_model_file
from onspect.training import session
from onspect.training.autoencoder.networks import Decoder, Encoder
from onspect.training.config import NetworkConfig, design_tiling
from onspect.training.tiles import place_of

from ..sharing import Share

HEIGHT, WIDTH = 56, 72
TILING = design_tiling("fast", HEIGHT, WIDTH, (40, 32))
NETWORK = NetworkConfig("cae", 32, 40, 1, (4, 8), (2, 1), 12, 6, expects=True)
NAMES = tuple(name for name, spec in SCORES.items() if spec.is_by_place)
Outputs = tuple[NDArray[np.float32], ...]


def draw_images(count: int = 3) -> NDArray[np.uint8]:
    """Return drawn images, larger than a tile."""
    return np.random.default_rng(9).integers(90, 160, (count, HEIGHT, WIDTH, 1), np.uint8)


def build_graph(name: str, *, tiled: bool = True, mask: NDArray[np.bool_] | None = None) -> InspectionGraph:
    """Return a graph with untrained weights, always the same: for images in tiles, or for a tile alone."""
    torch.manual_seed(3)
    graph = InspectionGraph(
        Encoder(NETWORK),
        Decoder(NETWORK, torch.full((1,), 0.5)),
        NETWORK,
        SCORES[name].define(max(NETWORK.height, NETWORK.width)),
        mask=None if mask is None else torch.from_numpy(mask),
        tiling=TILING if tiled else None,
    ).eval()
    if SCORES[name].is_relative:
        fit_normal_error(graph, torch.from_numpy(draw_images()))
    return graph


def run_graph(graph: InspectionGraph, images: NDArray[np.uint8]) -> Outputs:
    """Return score, error map, reconstruction and latent."""
    with torch.no_grad():
        return tuple(output.numpy() for output in graph(torch.from_numpy(images)))


def stitch(tiles: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the stitched outputs of an image's tiles, [tiles, h, w], by plain sums."""
    height, width = tiles.shape[1:]
    down, across = (np.minimum(np.arange(side) + 1, side - np.arange(side)) for side in (height, width))
    weight = np.outer(down, across)
    total, weights = np.zeros((2, HEIGHT, WIDTH))
    for place, tile in enumerate(tiles):
        top, left = place_of(TILING, place)
        total[top : top + height, left : left + width] += weight * tile
        weights[top : top + height, left : left + width] += weight
    return total / weights


def cut(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return an image's tiles."""
    places = [place_of(TILING, place) for place in range(TILING.count)]
    return np.stack([image[top : top + 32, left : left + 40] for top, left in places])


def test_the_error_is_that_of_the_stitched_reconstruction() -> None:
    """The networks see each tile as if it were alone; reconstruction, error map and latent vectors are the image's."""
    image = draw_images(1)
    _, _, of_tiles, latents = run_graph(build_graph("mse", tiled=False), cut(image[0]))
    score, error_map, reconstruction, latent = run_graph(build_graph("mse"), image)
    expected = stitch(of_tiles[:, 0])
    np.testing.assert_allclose(reconstruction[0, 0], expected, rtol=1e-5)
    np.testing.assert_allclose(error_map[0], (image[0, :, :, 0] / 255.0 - expected) ** 2, rtol=1e-3, atol=1e-7)
    np.testing.assert_allclose(score, error_map.mean(axis=(1, 2)), rtol=1e-5)
    np.testing.assert_allclose(latent[0], latents.ravel(), rtol=1e-4, atol=1e-6)


def test_the_expected_error_is_stitched_too() -> None:
    """The error of the stitched reconstruction is divided by the tiles' expected error, stitched as logarithms."""
    image = draw_images(1)
    alone, graph = build_graph("mse", tiled=False), build_graph("expected")
    planes = torch.from_numpy(cut(image[0])).permute(0, 3, 1, 2) / 255.0
    with torch.no_grad():
        log_expected = alone.decoder.expect(alone.encoder(planes)[0])[1]
        assert log_expected is not None
        _, error_map, reconstruction, _ = run_graph(graph, image)
        error = (image[0, :, :, 0] / 255.0 - reconstruction[0, 0]) ** 2 / np.exp(stitch(log_expected[:, 0].numpy()))
        expected = graph.smooth(torch.from_numpy(error).float()[None, None]) / graph.normal_error
    np.testing.assert_allclose(error_map[0], expected[0, 0].numpy(), rtol=1e-3)


def test_smoothing_goes_by_the_tile() -> None:
    """A small defect in an image is not smoothed away: 1/64 of the tile's longer side, not of the image's."""
    assert build_graph("relative").score.smoothing == 40 / 64


@pytest.mark.parametrize("name", [name for name in NAMES if SCORES[name].reduction is Reduction.MAXIMUM])
@pytest.mark.parametrize("place", [(27, 35), (2, 35), (27, 3), (50, 66)], ids=["four tiles", "two", "two more", "one"])
def test_a_spot_is_found_once_and_where_it_is(name: str, place: tuple[int, int]) -> None:
    """A spot in the overlap of tiles is one region of the map, at its place, as is one that a single tile shows."""
    top, left = place
    image = np.full((1, HEIGHT, WIDTH, 1), 128, np.uint8)
    image[:, top : top + 3, left : left + 3] = 255
    graph = build_graph(name)
    for values in graph.decoder.parameters():
        nn.init.zeros_(values)  # it says grey everywhere, and expects the same error everywhere
    if SCORES[name].is_relative:
        fit_normal_error(graph, torch.from_numpy(draw_images()))
    score, error_map, _, _ = run_graph(graph, image)
    found, _, boxes, _ = cv2.connectedComponentsWithStats((error_map[0] >= score[0] / 2).astype(np.uint8))
    assert found == 2
    x, y, width, height, _ = boxes[1]
    assert abs(x + width / 2 - left - 1.5) <= 1
    assert abs(y + height / 2 - top - 1.5) <= 1


@pytest.mark.parametrize("name", NAMES)
def test_what_a_mask_ignores_changes_nothing_in_tiles(name: str) -> None:
    """Whatever shows in ignored places in several tiles, score and map are the same to the bit, and 0 there."""
    mask = np.ones((HEIGHT, WIDTH), np.bool_)
    mask[20:36, 28:44] = False
    graph, images = build_graph(name, mask=mask), draw_images()
    spoiled = images.copy()
    spoiled[:, ~mask] = 255
    (score, error_map, *_), (again, map_again, *_) = run_graph(graph, images), run_graph(graph, spoiled)
    assert np.array_equal(score, again)
    assert np.array_equal(error_map, map_again)
    assert not error_map[:, ~mask].any()
    assert (error_map[:, mask] > 0).all()


@pytest.fixture(scope="module")
def plates(share: Share) -> Path:
    """A folder of drawn plates, good ones and some with a spot, with a mask beside them."""
    return share("plates", draw_plates)


def draw_plates(folder: Path) -> None:
    """Draw the plates."""
    random = np.random.default_rng(0)
    for part, count in (("train/good", 16), ("val/good", 8), ("val/spot", 4)):
        (folder / part).mkdir(parents=True)
        for index in range(count):
            image = random.integers(110, 140, (HEIGHT, WIDTH), np.uint8)
            if "spot" in part:
                image[26:32, 34:40] = 255
            cv2.imwrite(str(folder / part / f"{index}.png"), image)
    mask = np.full((HEIGHT, WIDTH), 255, np.uint8)
    mask[:, 60:] = 0
    cv2.imwrite(str(folder / "mask.png"), mask)


@pytest.fixture(scope="module")
def run(plates: Path, share: Share) -> Path:
    """A tiny tiled run, trained once."""
    options = session.TrainOptions(preset="fast", size=(WIDTH, HEIGHT), tile=(40, 32), epochs=2)
    devices = session.Devices(accelerator="cpu")
    return share("tiled", lambda folder: session.train(plates, folder / "run", options, devices=devices)) / "run"


@pytest.fixture(scope="module", params=["relative", "expected"])
def exported(request: pytest.FixtureRequest, run: Path, share: Share) -> Path:
    """The run's model file, with either score."""
    score = request.param
    name = f"{score}.onnx"
    return share(f"tiled-{score}", lambda folder: onnx_writer.export(run, folder / name, score=score)) / name


@pytest.mark.slow
def test_from_training_to_verdicts(plates: Path, run: Path, tmp_path: Path) -> None:
    """A tiled run is exported, calibrated and judges like any other; its card and file say how it cuts images."""
    path = str(tmp_path / "part.onnx")
    commands = [
        ["export", str(run), "-o", path, "--score", "relative", "--data", str(plates)],
        ["calibrate", path, str(plates)],
        ["score", path, str(plates / "val"), "-o", str(tmp_path / "v.jsonl"), "--overlays", str(tmp_path / "overlays")],
    ]
    for command in commands:
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 0, result.output
    file = read_model_file(path)
    assert file.info.network.tiling == TILING
    assert "2x2 tiles of 40x32 that overlap by 8 pixels, stitched" in describe(file)
    verdicts = Inspector(path).inspect_many(sorted((plates / "val").glob("*/*.png")))
    assert [verdict.verdict for verdict in verdicts] == ["ok"] * 8 + ["ng"] * 4
    region = Inspector(path).inspect(cv2.imread(str(plates / "val/spot/0.png"), cv2.IMREAD_UNCHANGED)).regions[0]
    assert 33 <= region.x + region.width / 2 <= 41
    assert 25 <= region.y + region.height / 2 <= 33


@pytest.mark.slow
def test_a_batch_is_judged_as_its_images_are(exported: Path) -> None:
    """Two images in a run have, to the bit, the scores and maps that each has alone."""
    inspector = Inspector(exported, provider="cpu")
    images = draw_images(2)
    together, alone = inspector.run(images), [inspector.run(images[index : index + 1]) for index in range(2)]
    assert np.array_equal(together.score, np.concatenate([one.score for one in alone]))
    assert np.array_equal(together.error_map, np.concatenate([one.error_map for one in alone]))


@pytest.mark.slow
def test_parts_of_a_tiled_run_compose_to_the_whole(run: Path, plates: Path, tmp_path: Path) -> None:
    """Encoder and decoder pass on the latent vectors of all tiles and give the image's reconstruction, mask and all."""
    onnx_writer.export(run, tmp_path / "a.onnx", score="mse", parts=True, mask=plates / "mask.png")
    images = draw_images(2)
    whole, encoder, decoder = (onnxruntime.InferenceSession(tmp_path / f"a{part}.onnx") for part in PARTS)
    latent, reconstruction = whole.run(["latent", "reconstruction"], {"image": images})
    assert latent.shape == (2, 4 * 32)
    np.testing.assert_allclose(encoder.run(None, {"image": images})[0], latent, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(decoder.run(None, {"latent": latent})[0], reconstruction, rtol=1e-4, atol=1e-5)


PARTS = ("", ".encoder", ".decoder")


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_a_tiled_file_in_lower_precision(exported: Path, plates: Path, tmp_path: Path, precision: str) -> None:
    """Networks that see tiles go into 8 or 16 bits as others do, and nothing of the stitching does."""
    reduced = quantize(exported, tmp_path / "a.onnx", precision, plates, max_flips=12)
    assert reduced.info.network.tiling == TILING
    assert not any("stitch" in each.layer.name for each in reduced.layers)
    assert Inspector(tmp_path / "a.onnx").run(draw_images(2)).error_map.shape == (2, HEIGHT, WIDTH)


@pytest.mark.parametrize("score", ["combined", "whitened", "latent"])
def test_measures_of_the_whole_image_are_refused(run: Path, tmp_path: Path, score: str) -> None:
    """Scores fitted to whole images are refused for networks that see tiles: one sentence, and no file."""
    others = f"{', '.join(NAMES[:-1])} or {NAMES[-1]}"
    with pytest.raises(ChoiceError, match=f"score is '{score}', .* see tiles of it; choose {others}"):
        onnx_writer.export(run, tmp_path / "a.onnx", score=score)
    assert not (tmp_path / "a.onnx").exists()
