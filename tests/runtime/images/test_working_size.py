"""The working size: a pixel budget at the aspect ratio of the images."""

import itertools
import math

import pytest

from onspect.runtime.images.working_size import largest_stretch, working_size

FAST, BALANCED, ACCURATE = 128 * 128, 256 * 256, 384 * 384


@pytest.mark.parametrize(
    ("image", "budget", "expected"),
    [
        ((28, 28), BALANCED, (28, 28)),  # MNIST
        ((32, 32), BALANCED, (32, 32)),  # CIFAR-10
        ((20, 31), BALANCED, (20, 31)),
        ((300, 300), BALANCED, (256, 256)),
        ((1024, 1024), FAST, (128, 128)),
        ((1024, 1024), ACCURATE, (384, 384)),
        ((256, 640), BALANCED, (160, 384)),
        ((640, 256), BALANCED, (384, 160)),
        ((256, 640), FAST, (64, 160)),
        ((1536, 2048), BALANCED, (224, 288)),
        ((100, 100), BALANCED, (96, 96)),
        ((112, 112), BALANCED, (128, 128)),
        ((20, 390), BALANCED, (20, 384)),
        ((32, 8192), BALANCED, (32, 2048)),  # no lower than one multiple
    ],
)
def test_one_size_of_images(image: tuple[int, int], budget: int, expected: tuple[int, int]) -> None:
    assert working_size([image] * 3, budget) == expected


def test_every_size_keeps_to_the_rules() -> None:
    sides = [1, 7, 31, 32, 33, 47, 48, 100, 255, 256, 333, 640, 1000, 2448, 4096]
    for (height, width), budget in itertools.product(itertools.product(sides, sides), [FAST, BALANCED, ACCURATE]):
        rows, columns = working_size([(height, width)], budget)
        for side, own in ((rows, height), (columns, width)):
            assert side == own if own < 32 else side % 32 == 0
            assert 1 <= side <= max(own, math.floor(own / 32 + 0.5) * 32)
        assert rows * columns <= budget
        if max(height, width) <= 4 * min(height, width) and min(height, width) >= 100:
            assert largest_stretch([(height, width)], (rows, columns)) < 1.21, (height, width, budget)
            assert rows * columns >= 0.6 * min(budget, height * width), (height, width, budget)


def test_a_turned_image_has_a_turned_size() -> None:
    for image in [(256, 640), (480, 752), (1200, 1920), (90, 410)]:
        assert working_size([image], BALANCED) == working_size([image[::-1]], BALANCED)[::-1]


def test_several_shapes_take_the_median_aspect_ratio() -> None:
    sizes = [(400, 400), (400, 800), (500, 1000), (600, 1200), (300, 1200)]
    assert working_size(sizes, BALANCED) == (160, 320)
    assert largest_stretch(sizes, (160, 320)) == pytest.approx(2.0)
    assert working_size([(800, 400), (400, 800)], BALANCED) == (256, 256)  # on a logarithmic scale: 2:1 and 1:2 is 1:1


def test_few_large_images_do_not_enlarge_the_others() -> None:
    assert working_size([(64, 64)] * 9 + [(1024, 1024)], BALANCED) == (64, 64)


def test_another_multiple() -> None:
    assert working_size([(256, 640)], BALANCED, multiple=8) == (160, 400)


def test_a_line_camera_has_a_size_too() -> None:
    assert working_size([(4096, 100_000)], BALANCED) == (32, 800)


def test_a_budget_below_one_multiple_gives_the_smallest_size() -> None:
    assert working_size([(500, 500)], 100) == (32, 32)


@pytest.mark.parametrize(
    ("image", "size", "stretch"),
    [((256, 640), (128, 320), 1.0), ((256, 640), (256, 256), 2.5), ((640, 256), (256, 256), 2.5)],
)
def test_largest_stretch(image: tuple[int, int], size: tuple[int, int], stretch: float) -> None:
    assert largest_stretch([size, image], size) == pytest.approx(stretch)


@pytest.mark.parametrize(
    ("sizes", "budget", "multiple", "reason"),
    [
        ([], BALANCED, 32, "no image sizes"),
        ([(0, 5)], BALANCED, 32, "one of them is 0"),
        ([(5, 5)], 0, 32, "one of them is 0"),
        ([(5, 5)], BALANCED, -1, "one of them is -1"),
    ],
)
def test_bad_input(sizes: list[tuple[int, int]], budget: int, multiple: int, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        working_size(sizes, budget, multiple)
