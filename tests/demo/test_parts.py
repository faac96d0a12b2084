from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from onspect.demo.parts import DEFECT_KINDS, draw_dataset, draw_part

SIZE = 64


def draw(seed: int, defect: str | None = None, size: int = SIZE) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Image and mask of the part of one seed."""
    return draw_part(np.random.default_rng(seed), defect, size)


def change(seed: int, defect: str, size: int = SIZE) -> NDArray[np.int16]:
    """Signed difference between a defective part and the same part without its defect."""
    return draw(seed, defect, size)[0].astype(np.int16) - draw(seed, None, size)[0]


def files(folder: Path) -> dict[str, bytes]:
    """Content of every file below a folder by its relative name."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("defect", [None, *DEFECT_KINDS])
@pytest.mark.parametrize("size", [32, 65])
def test_image_and_mask_are_grey_squares_of_the_asked_size(defect: str | None, size: int) -> None:
    """Image and mask are uint8 of shape (size, size), at the smallest and at an odd size."""
    for picture in draw(0, defect, size):
        assert picture.dtype == np.uint8
        assert picture.shape == (size, size)


def test_default_size_is_128() -> None:
    """Without a size a part is 128 pixels a side."""
    assert draw_part(np.random.default_rng(0))[0].shape == (128, 128)


@pytest.mark.parametrize("defect", [None, *DEFECT_KINDS])
def test_same_seed_draws_the_same_part(defect: str | None) -> None:
    """Two generators of one seed draw equal images and masks."""
    for first, second in zip(draw(3, defect), draw(3, defect), strict=True):
        np.testing.assert_array_equal(first, second)


def test_another_seed_draws_another_part() -> None:
    """Good parts differ from one another in more than a few pixels."""
    assert np.mean(draw(1)[0] != draw(2)[0]) > 0.5


def test_good_parts_stay_close_to_one_another() -> None:
    """Good parts vary by a few grey levels on average, as parts on a line do."""
    pictures = np.stack([draw(seed)[0] for seed in range(8)]).astype(np.float32)
    assert np.abs(pictures - pictures.mean(axis=0)).mean() < 5


def test_good_part_has_an_empty_mask() -> None:
    """The mask of a good part is zero everywhere."""
    assert not draw(0)[1].any()


@pytest.mark.parametrize("size", [32, SIZE])
@pytest.mark.parametrize("defect", DEFECT_KINDS)
def test_every_defect_has_a_mask_of_0_and_255(defect: str, size: int) -> None:
    """Even a subtle defect marks some pixels, and the mask has nothing but 0 and 255."""
    for seed in range(12):
        assert np.unique(draw(seed, defect, size)[1]).tolist() == [0, 255]


@pytest.mark.parametrize("defect", DEFECT_KINDS)
def test_mask_marks_where_the_defect_changes_the_part(defect: str) -> None:
    """Inside the mask the part differs visibly from the same part without the defect, outside it does not."""
    for seed in range(6):
        difference, marked = np.abs(change(seed, defect)), draw(seed, defect)[1] == 255
        assert difference[marked].min() >= 5
        assert difference[~marked].max() < 5


@pytest.mark.parametrize("defect", DEFECT_KINDS)
def test_defects_lie_on_the_metal(defect: str) -> None:
    """No defect marks the ground around the part or the ground seen through the bore."""
    middle = (SIZE - 1) / 2
    row, column = np.mgrid[:SIZE, :SIZE]
    radius = np.hypot(row - middle, column - middle) * 128 / SIZE
    ground = (radius < 11) | (radius > 59)
    for seed in range(12):
        assert not draw(seed, defect)[1][ground].any()


def test_stain_only_darkens() -> None:
    """A stain makes no pixel brighter."""
    assert max(change(seed, "stain").max() for seed in range(6)) <= 0


def test_dent_has_a_bright_and_a_dark_side() -> None:
    """A dent brightens some pixels visibly and darkens others."""
    differences = [change(seed, "dent") for seed in range(6)]
    assert any(difference.max() >= 5 and difference.min() <= -5 for difference in differences)


def test_scratch_is_thin() -> None:
    """A scratch covers a small share of its picture."""
    assert max(np.mean(draw(seed, "scratch", 128)[1] > 0) for seed in range(6)) < 0.03


def test_unknown_defect_is_refused_by_name() -> None:
    """An unknown defect raises ValueError that names it and the allowed kinds."""
    with pytest.raises(ValueError, match="'rust': use one of scratch, dent, stain"):
        draw(0, "rust")


def test_too_small_a_part_is_refused() -> None:
    """A size below 32 raises ValueError that names it."""
    with pytest.raises(ValueError, match="size is 31"):
        draw(0, size=31)


def test_dataset_has_the_mvtec_layout(tmp_path: Path) -> None:
    """Every split and kind has its folder with the asked number of files, and every defective part its mask."""
    draw_dataset(tmp_path, seed=0, train=3, good=2, defective=1, size=32)
    expected = {f"train/good/{number:03d}.png" for number in range(3)}
    for split in ("val", "test"):
        expected |= {f"{split}/good/{number:03d}.png" for number in range(2)}
        expected |= {f"{split}/{kind}/000.png" for kind in DEFECT_KINDS}
        expected |= {f"ground_truth/{split}/{kind}/000_mask.png" for kind in DEFECT_KINDS}
    assert set(files(tmp_path)) == expected


def test_dataset_files_are_grey_png_of_the_asked_size(tmp_path: Path) -> None:
    """Every file decodes to one channel of uint8 at the asked size."""
    draw_dataset(tmp_path, seed=0, train=1, good=1, defective=1, size=32)
    for name in files(tmp_path):
        picture = cv2.imread(str(tmp_path / name), cv2.IMREAD_UNCHANGED)
        assert picture is not None
        assert picture.shape == (32, 32)
        assert picture.dtype == np.uint8


def test_same_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    """Two data sets of one seed are equal byte for byte."""
    for name in ("first", "second"):
        draw_dataset(tmp_path / name, seed=5, train=1, good=1, defective=1, size=32)
    assert files(tmp_path / "first") == files(tmp_path / "second")


def test_another_seed_writes_other_images(tmp_path: Path) -> None:
    """No file of one seed equals the file of the same name of another seed."""
    for seed in (1, 2):
        draw_dataset(tmp_path / str(seed), seed=seed, train=1, good=1, defective=1, size=32)
    first, second = files(tmp_path / "1"), files(tmp_path / "2")
    assert all(first[name] != second[name] for name in first)


def test_larger_counts_leave_the_first_images_unchanged(tmp_path: Path) -> None:
    """A larger data set contains the smaller one of the same seed byte for byte."""
    draw_dataset(tmp_path / "small", seed=5, train=1, good=1, defective=1, size=32)
    draw_dataset(tmp_path / "large", seed=5, train=2, good=3, defective=2, size=32)
    assert files(tmp_path / "small").items() <= files(tmp_path / "large").items()


def test_no_image_appears_twice(tmp_path: Path) -> None:
    """All images of a data set differ, across splits too."""
    draw_dataset(tmp_path, seed=0, train=2, good=2, defective=2, size=32)
    images = [content for name, content in files(tmp_path).items() if not name.startswith("ground_truth")]
    assert len(set(images)) == len(images)


@pytest.mark.parametrize("name", ["seed", "train", "good", "defective"])
def test_negative_seed_or_count_is_refused(tmp_path: Path, name: str) -> None:
    """A negative seed or count raises ValueError that names it, before anything is written."""
    with pytest.raises(ValueError, match=f"{name} is -1"):
        draw_dataset(tmp_path, **{"seed": 0, "train": 1, "good": 1, "defective": 1, name: -1})
    assert files(tmp_path) == {}
