import numpy as np
import pytest
from numpy.typing import NDArray

from onspect.training import defects
from onspect.training.defects import CHANGES, SHAPES, draw_defects


def texture(seed: int, height: int = 96, width: int = 128, channels: int = 1) -> NDArray[np.float32]:
    random = np.random.default_rng(seed)
    return np.asarray(0.5 + 0.1 * random.normal(size=(height, width, channels)), np.float32).clip(0, 1)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("channels", [1, 3])
def test_each_shape_changes_the_image_where_its_mask_says(
    monkeypatch: pytest.MonkeyPatch, shape: str, channels: int
) -> None:
    """Under the mask the image differs visibly from the good one, in every shape, mono and colour."""
    monkeypatch.setattr(defects, "SHAPES", {shape: SHAPES[shape]})
    good, donor = texture(1, channels=channels), texture(2, channels=channels)
    for seed in range(10):
        drawn = draw_defects(good, donor, np.random.default_rng(seed))
        assert drawn.image.dtype == np.float32
        assert drawn.image.shape == good.shape
        assert 0.0 <= drawn.image.min() <= drawn.image.max() <= 1.0
        assert set(np.unique(drawn.mask)) <= {0.0, 1.0}
        if drawn.mask.any():
            difference = np.abs(drawn.image - good).max(axis=2)
            assert difference[drawn.mask > 0].mean() > defects.VISIBLE / 2
            assert difference[drawn.mask > 0].mean() > difference[drawn.mask == 0].mean()


@pytest.mark.parametrize("change", CHANGES)
def test_each_change_is_of_the_image_s_shape(change: str) -> None:
    """Each change gives finite values for every pixel, mono and colour, and leaves its inputs alone."""
    canvas = defects._Canvas(96, 128, 128)
    for channels in (1, 3):
        good, donor = texture(1, channels=channels), texture(2, channels=channels)
        kept = good.copy(), donor.copy()
        for seed in range(20):
            changed = CHANGES[change](good, donor, canvas, np.random.default_rng(seed))
            assert changed.shape == good.shape
            assert np.isfinite(changed).all()
        assert np.array_equal(good, kept[0])
        assert np.array_equal(donor, kept[1])


@pytest.mark.parametrize("shape", ["side", "patch", "clouds"])
def test_a_defect_is_the_smaller_side(shape: str) -> None:
    """Of a boundary through what is seen, the side that is marked covers no more than half, but for its soft edge."""
    piece, donor = texture(1, 64, 64), texture(2, 64, 64)
    canvas = defects._Canvas(64, 64, side=256)
    shares = []
    for seed in range(60):
        _, seen = defects._draw_one(piece, donor, canvas, SHAPES[shape], np.random.default_rng(seed))
        shares += [] if seen is None else [float(seen.mean())]
    assert len(shares) >= 10
    assert np.quantile(shares, 0.9) <= 0.52
    assert max(shares) < 0.8


def test_most_images_get_a_defect() -> None:
    """Of a hundred, hardly any is left without a defect that can be seen."""
    masks = [draw_defects(texture(1), texture(2), np.random.default_rng(seed)).mask for seed in range(100)]
    assert sum(mask.any() for mask in masks) >= 95


def test_the_same_random_state_draws_the_same() -> None:
    """A defect follows from image, donor and random state alone."""
    one, same, other = (draw_defects(texture(1), texture(2), np.random.default_rng(seed)) for seed in (7, 7, 8))
    assert np.array_equal(one.image, same.image)
    assert np.array_equal(one.mask, same.mask)
    assert not np.array_equal(one.image, other.image)


def test_small_defects_weigh_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pixel of a small defect counts for more than one of a large defect, and one of none for one."""

    def weight(shape: str) -> float:
        monkeypatch.setattr(defects, "SHAPES", {shape: SHAPES[shape]})
        drawn = [draw_defects(texture(1), texture(2), np.random.default_rng(seed)) for seed in range(20)]
        assert all((one.weight[one.mask == 0] == 1.0).all() for one in drawn)
        return float(np.median([one.weight[one.mask > 0].mean() for one in drawn if one.mask.any()]))

    assert weight("specks") > 2 * weight("side")


def test_a_piece_gets_the_defects_of_the_whole() -> None:
    """Sizes follow from the whole image's side, so that a piece of it shows defects of the same size in pixels."""

    def area(side: int) -> float:
        random = np.random.default_rng(0)
        canvas = defects._Canvas(128, 128, side)
        return float(np.mean([SHAPES["blob"].draw(canvas, random)[0].sum() for _ in range(200)]))

    assert area(256) > 2 * area(128)
