import numpy as np
import pytest

from onspect.training.augment import augment
from onspect.training.config import AUGMENTATIONS


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_each_changes_and_repeats(name: str, channels: int) -> None:
    """Each way changes some image, keeps shape and dtype, and does the same under the same seed."""
    image = np.random.default_rng(0).integers(0, 255, (50, 60, channels), np.uint8)
    results = [augment(image, (name,), np.random.default_rng(seed)) for seed in range(8)]
    assert all(result.shape == image.shape and result.dtype == np.uint8 for result in results)
    assert any(not np.array_equal(result, image) for result in results)
    assert np.array_equal(results[3], augment(image, (name,), np.random.default_rng(3)))


def test_none_changes_nothing() -> None:
    """Without any way chosen the image stays unchanged."""
    image = np.arange(64, dtype=np.uint8).reshape(8, 8, 1)
    assert np.array_equal(augment(image, (), np.random.default_rng(0)), image)


def test_a_shift_is_by_whole_pixels_and_repeats_the_edge() -> None:
    """Each is a move by up to 2% of width and height, one way or the other, and nothing else."""
    image = np.random.default_rng(0).integers(0, 255, (100, 150, 2), np.uint8)
    rows, columns = np.arange(100), np.arange(150)
    moves = {}
    for down in range(-2, 3):
        for right in range(-3, 4):
            moved = image[np.clip(rows - down, 0, 99)][:, np.clip(columns - right, 0, 149)]
            moves[moved.tobytes()] = (right, down)
    seen = {moves[augment(image, ("shift",), np.random.default_rng(seed)).tobytes()] for seed in range(300)}
    assert seen == set(moves.values())


def test_brightness_is_mild() -> None:
    """Light changes by at most 5%."""
    image = np.full((4, 4, 1), 200, np.uint8)
    values = [int(augment(image, ("brightness",), np.random.default_rng(seed))[0, 0, 0]) for seed in range(50)]
    assert 190 <= min(values) < 195
    assert 205 < max(values) <= 210
