import dataclasses
import itertools
import re
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from onspect.runtime.cli import main
from onspect.runtime.errors import ChoiceError
from onspect.runtime.model.schema import SourceLimits, Tiling
from onspect.runtime.records import parse_dataclass
from onspect.training import session
from onspect.training.checkpoint import read_record, read_tensors
from onspect.training.config import TrainConfig, design_tiling
from onspect.training.summary import describe
from onspect.training.tiles import Cut, Stitching, Tiles, place_of

from ..sharing import Share

CPU = session.Devices(accelerator="cpu")
CHOICES = session.TrainOptions(preset="fast", size=(72, 56), tile=(40, 32), epochs=2, batch_size=8, holdout=0.25)
TILING = Tiling(40, 32, (0, 32), (0, 24))


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Networks this small only lose time by sharing a step between threads."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def plates(share: Share) -> Path:
    """Twelve drawn images, larger than a tile."""

    def draw(folder: Path) -> None:
        random = np.random.default_rng(0)
        for index in range(12):
            cv2.imwrite(str(folder / f"{index}.png"), random.integers(90, 160, (56, 72), np.uint8))

    return share("tiled-plates", draw)


@pytest.fixture(scope="module")
def run(plates: Path, share: Share) -> Path:
    """A tiny tiled run, trained once."""
    return share("tiled-run", lambda folder: session.train(plates, folder / "run", CHOICES, devices=CPU)) / "run"


@pytest.mark.parametrize("tile", [32, 36, 64, 100, 128, 256, 320])
@pytest.mark.parametrize("more", [1, 8, 29, 60, 96, 256, 770, 1803])
def test_tiles_cover_the_image_and_overlap(tile: int, more: int) -> None:
    """Tiles begin and end with the image, share an eighth or more, and one fewer would not do."""
    tiling = design_tiling("fast", tile + more, tile, (tile, tile))
    tops = np.array(tiling.tops)
    gaps = np.diff(tops)
    assert tiling.lefts == (0,)
    assert tops[0] == 0
    assert tops[-1] + tile == tile + more
    assert gaps.max() <= tile - tile / 8
    assert gaps.max() - gaps.min() in (0, 1)
    if len(tops) > 2:
        assert (tile - -(-tile // 8)) * (len(tops) - 2) < more


@pytest.mark.parametrize(
    ("preset", "size", "tile", "message"),
    [
        ("fast", (64, 64), (128, 32), "--tile 128x32 is larger than the working size 64x64; give a smaller tile"),
        ("fast", (64, 48), (64, 48), "--tile 64x48 is the whole working size; give a larger --size"),
        ("fast", (64, 64), (64, 24), "--tile 64x24 is too small for the networks; give one of at least 32x32"),
        ("paper", (64, 64), (40, 40), "--tile 40x40 is not for preset paper.* choose --preset fast"),
    ],
)
def test_tiles_that_cannot_be_are_refused(
    preset: str, size: tuple[int, int], tile: tuple[int, int], message: str, tmp_path: Path
) -> None:
    """A wrong tile is refused with its size and the remedy, before an image is read."""
    with pytest.raises(ChoiceError, match=message):
        design_tiling(preset, size[1], size[0], tile)
    options = session.TrainOptions(preset=preset, size=size, tile=tile)
    with pytest.raises(ChoiceError, match=message):
        session.train(tmp_path / "missing", tmp_path / "run", options, devices=CPU)


def test_tiles_are_a_view_of_the_images() -> None:
    """An index, a slice and an array of indices give the same tiles, each at its place in the image."""
    images = np.random.default_rng(1).integers(0, 256, (3, 56, 72, 2), np.uint8)
    tiles = Tiles(images, TILING)
    assert (len(tiles), tiles.shape, tiles.size) == (12, (12, 32, 40, 2), 12 * 32 * 40 * 2)
    assert np.shares_memory(tiles[5], images)
    expected = [image[top : top + 32, left : left + 40] for image in images for top in (0, 24) for left in (0, 32)]
    assert np.array_equal(tiles[2:9], expected[2:9])
    assert np.array_equal(tiles[np.array([7, 0, 11])], [expected[7], expected[0], expected[11]])
    assert np.array_equal(tiles[np.int64(6)], expected[6])
    planes = torch.from_numpy(images).permute(0, 3, 1, 2)
    assert np.array_equal(Cut(TILING)(planes).permute(0, 2, 3, 1).numpy(), expected)


@pytest.mark.parametrize("sides", [(72, 56, 40, 32), (76, 32, 64, 32), (151, 33, 151, 32), (96, 100, 40, 40)])
def test_stitching_is_a_mean_weighed_by_the_distance_from_the_edge(sides: tuple[int, int, int, int]) -> None:
    """Stitched maps are what plain loops over pixels give."""
    width, height, tile_width, tile_height = sides
    tiling = design_tiling("fast", height, width, (tile_width, tile_height))
    maps = torch.rand(2 * tiling.count, 3, tile_height, tile_width)
    total, weights = np.zeros((2, 3, height, width)), np.zeros((height, width))
    for image, place in itertools.product(range(2), range(tiling.count)):
        top, left = place_of(tiling, place)
        for y, x in itertools.product(range(tile_height), range(tile_width)):
            weight = min(y + 1, tile_height - y) * min(x + 1, tile_width - x)
            total[image, :, top + y, left + x] += weight * maps[image * tiling.count + place, :, y, x].numpy()
            weights[top + y, left + x] += weight / 2
    np.testing.assert_allclose(Stitching(tiling)(maps).numpy(), total / weights, rtol=1e-5)


def test_what_was_cut_is_stitched_to_itself() -> None:
    """Tiles of an image, joined again, are the image."""
    planes = torch.rand(2, 3, 56, 72)
    torch.testing.assert_close(Stitching(TILING)(Cut(TILING)(planes)), planes)


def test_networks_are_those_of_a_tile(run: Path) -> None:
    """The recipe and the samples keep the whole image; networks and batches are made for its tiles."""
    record = read_record(run)
    assert record.config.tiling == TILING
    assert (record.config.network.width, record.config.network.height) == (40, 32)
    assert (record.data.recipe.width, record.data.recipe.height) == (72, 56)
    assert record.config.batch_size == 8
    assert read_tensors(run / "samples.safetensors")[0]["images"].shape == (12, 56, 72, 1)
    preview = cv2.imread(str(run / "preview.png"))
    assert preview is not None
    assert preview.shape[1] >= 3 * 72


def test_an_older_run_has_no_tiles(run: Path) -> None:
    """A record without tiles is read as one of whole images."""
    content = dataclasses.asdict(read_record(run).config)
    del content["tiling"]
    network = content["network"]
    content["network"] = {key: list(v) if isinstance(v, tuple) else v for key, v in network.items()}
    content["augment"] = list(content["augment"])
    assert parse_dataclass(TrainConfig, content).tiling is None


@pytest.mark.slow
@pytest.mark.parametrize("stop_at", [3, 8])
def test_a_resumed_run_has_the_same_weights(plates: Path, run: Path, tmp_path: Path, stop_at: int) -> None:
    """A tiled run that was interrupted ends as if it had not been."""
    seen = itertools.count(1)

    def interrupt(moment: object) -> None:
        if next(seen) == stop_at:
            signal.raise_signal(signal.SIGINT)

    again = tmp_path / "again"
    outcome = session.train(plates, again, CHOICES, devices=CPU, callbacks=session.Callbacks(step=interrupt))
    assert outcome.reason == "interrupted"
    assert session.resume(again, devices=CPU).reason == "finished"
    resumed, whole = (read_tensors(folder / "weights.safetensors")[0] for folder in (again, run))
    assert all(torch.equal(resumed[key], whole[key]) for key in whole)


@pytest.mark.slow
def test_the_command_says_how_images_are_cut(plates: Path, tmp_path: Path) -> None:
    """`onspect train --tile` says how many tiles there are, of what size, how far they overlap, and for how long."""
    arguments = ["train", str(plates), "-o", str(tmp_path / "run"), "--device", "cpu"]
    choices = ["--preset", "fast", "--size", "72x56", "--tile", "40x32"]
    result = CliRunner().invoke(main, [*arguments, *choices])
    assert result.exit_code == 0, result.output
    assert re.search(
        r"each image is cut into 2x2 tiles of 40x32 that overlap by 8 pixels$", result.stderr, re.MULTILINE
    )
    assert "25 epochs of batch" in result.stderr  # a quarter of those without tiles: an epoch has four times the steps


def test_the_plan_says_what_shrinking_loses(run: Path) -> None:
    """The plan says how much images are shrunk and, if it is much, which options look closer at what cost."""

    def plan(width: tuple[int, int], height: tuple[int, int]) -> str:
        record = read_record(run)
        preprocess = dataclasses.replace(record.data.recipe, source=SourceLimits((1,), width, height))
        data = dataclasses.replace(record.data, recipe=preprocess)
        config = dataclasses.replace(record.config, tiling=None)
        return describe(dataclasses.replace(record, data=data, config=config))

    assert (
        "images of 289x224 are shrunk 4.0 times in each direction; defects smaller than about 4 pixels are lost; "
        "--size 289x224 --tile 72x56 looks closer, at 25 times the cost of an image\n"
    ) in plan((289, 289), (224, 224))
    assert "images of up to 288x224 are shrunk 4.0 times in each direction" in plan((70, 576), (70, 448))
    assert "no tiles: images are shrunk only 1.9 times in each direction\n" in plan((140, 140), (100, 100))
    assert "no tiles: images are not shrunk\n" in plan((72, 72), (56, 56))


@pytest.mark.parametrize(
    ("lefts", "tops"), [((), (0,)), ((4, 20), (0,)), ((0, 44), (0,)), ((0, 0), (0,)), ((0,), (0, 8, 4))]
)
def test_tiles_with_gaps_are_none(lefts: tuple[int, ...], tops: tuple[int, ...]) -> None:
    """A file with tiles that do not cover an image is refused as damaged."""
    with pytest.raises(ValueError, match=r"tiles of .* pixels begin at"):
        Tiling(40, 32, lefts, tops)
