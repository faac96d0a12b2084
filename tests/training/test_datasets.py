import logging
from pathlib import Path

import cv2
import numpy as np
import pytest

from onspect.runtime.errors import DatasetError
from onspect.training.datasets import load_training_set


def write(folder: Path, name: str, image: np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(folder / name), image)


def test_folder_with_train_good(parts: Path) -> None:
    """Images below train/good are read in the order of their names, at their own size where the paper has a network."""
    data = load_training_set(parts)
    assert data.images.shape == (24, 28, 28, 1)
    assert data.preset == "paper"
    first = cv2.imread(str(parts / "train" / "good" / "000.png"), cv2.IMREAD_GRAYSCALE)
    assert first is not None
    assert np.array_equal(data.images[0, :, :, 0], first)


def test_flat_folder(parts: Path) -> None:
    """A flat folder of images is a folder of good ones."""
    assert len(load_training_set(parts / "train" / "good").images) == 24


def test_uniform_size_is_demanded_later(parts: Path) -> None:
    """If all training images have one size, the model takes only that one; with any_size it takes all."""
    assert load_training_set(parts).preprocess.source.width == (28, 28)
    assert load_training_set(parts, any_size=True).preprocess.source.width is None


def test_images_of_several_shapes_take_the_median_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing becomes a square: the most different image and its stretch are named, and later sizes may vary."""
    logging.getLogger("onspect").propagate = True
    for value, (name, shape) in enumerate((("a", (64, 128)), ("b", (96, 192)), ("c", (64, 128)), ("d", (128, 128)))):
        write(tmp_path, f"{name}.png", np.full(shape, value, np.uint8))
    data = load_training_set(tmp_path)
    assert data.images.shape == (4, 64, 128, 1)
    assert (data.preprocess.source.width, data.preprocess.source.height) == ((64, 384), (32, 256))
    assert "resized to 128x64: the most different one" in caplog.text
    assert "d.png' of 128x128, is stretched 2.00 times" in caplog.text
    assert load_training_set(tmp_path, preset="paper").images.shape == (4, 76, 152, 1)  # for its refusal to name


def test_images_of_one_shape_and_several_sizes_are_not_called_stretched(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Only the shape counts: the sizes are named, and so is how few they are, and that is all."""
    logging.getLogger("onspect").propagate = True
    for index, side in enumerate((64, 128, 192, 256)):
        write(tmp_path, f"{index}.png", np.zeros((side, side), np.uint8))
    assert load_training_set(tmp_path).images.shape == (4, 160, 160, 1)
    sizes, few = (record.getMessage() for record in caplog.records)
    assert sizes == "the images have 4 sizes, from 64x64 to 256x256, and each is resized to 160x160"
    assert few.startswith("there are only 4 good images")


def test_the_paper_s_networks_need_every_image_to_have_their_size(tmp_path: Path) -> None:
    """One image of another size among 28 px ones is enough for the general network."""
    for index, side in enumerate((28, 28, 40)):
        write(tmp_path, f"{index}.png", np.zeros((side, side), np.uint8))
    assert load_training_set(tmp_path).preset == "balanced"


def test_large_images_are_shrunk_with_their_aspect(tmp_path: Path) -> None:
    """The working size has the preset's pixel budget, the images' aspect ratio and sides that are multiples of 32."""
    write(tmp_path, "a.png", np.zeros((512, 1280), np.uint8))
    assert load_training_set(tmp_path).images.shape == (1, 160, 384, 1)
    assert load_training_set(tmp_path, preset="fast").images.shape == (1, 64, 160, 1)
    assert load_training_set(tmp_path, preset="accurate").images.shape == (1, 224, 576, 1)


def test_grey_in_three_channels_is_mono(tmp_path: Path) -> None:
    """Grey images that are stored as colour train a mono model that expects them as colour."""
    write(tmp_path, "a.png", np.full((40, 40, 3), 90, np.uint8))
    preprocess = load_training_set(tmp_path).preprocess
    assert (preprocess.channels, preprocess.source.channels) == (1, (3,))


def test_one_coloured_image_makes_a_colour_model(tmp_path: Path) -> None:
    """A colour image among grey ones is reason enough to see colour, also when it is not the first."""
    write(tmp_path, "a.png", np.full((40, 40), 90, np.uint8))
    write(tmp_path, "b.png", np.full((40, 40, 3), (90, 10, 10), np.uint8))
    data = load_training_set(tmp_path)
    assert data.images.shape == (2, 32, 32, 3)
    assert data.preprocess.source.channels == (1, 3)


def test_dark_16_bit_images_are_noticed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """12-bit values in 16-bit files are reported, with the option that keeps their depth."""
    logging.getLogger("onspect").propagate = True
    write(tmp_path, "a.png", np.full((40, 40), 4000, np.uint16))
    load_training_set(tmp_path)
    assert "--white-level 4095" in caplog.text


def test_copies_count_once_and_few_images_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Five copies count as one image; one image, or eight, give a warning before the work starts."""
    for number in range(5):
        write(tmp_path, f"{number}.png", np.full((32, 32), 90, np.uint8))
    assert len(load_training_set(tmp_path).images) == 1
    assert "4 of 5 images repeat other files and count once" in caplog.text
    assert "there is only 1 good image" in caplog.text
    caplog.clear()
    for number in range(5, 12):
        write(tmp_path, f"{number}.png", np.full((32, 32), 90 + number, np.uint8))
    assert len(load_training_set(tmp_path).images) == 8
    assert "there are only 8 good images" in caplog.text


def test_several_sizes_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """If no size is usual, the smallest and the largest are named."""
    for number, side in enumerate((32, 48, 64)):
        write(tmp_path, f"{number}.png", np.full((side, side), 90, np.uint8))
    load_training_set(tmp_path)
    assert "3 sizes, from 32x32 to 64x64" in caplog.text


def test_bright_16_bit_images_are_noticed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Values above the white level are named, as too dark ones are; where most are above it, nothing is trained."""
    tmp_path.mkdir(exist_ok=True)
    values = np.full((32, 32), 3000, np.uint16)
    values[:4] = 60000
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(cv2.imencode(".png", values + number)[1].tobytes())
    load_training_set(tmp_path, white_level=4095)
    assert "12.5% of an image's 16-bit values are above --white-level 4095" in caplog.text
    (tmp_path / "9.png").write_bytes(cv2.imencode(".png", values * 0 + 50000)[1].tobytes())
    with pytest.raises(DatasetError, match="above the model's white level"):
        load_training_set(tmp_path, white_level=4095)


def test_12_bit_white(tmp_path: Path) -> None:
    """With the camera's white level, its brightest value is 255."""
    write(tmp_path, "a.png", np.full((40, 40), 4095, np.uint16))
    assert int(load_training_set(tmp_path, white_level=4095).images.min()) == 255


def test_bad_images_are_named(parts: Path) -> None:
    """Unreadable training images are refused together, with how many, which and why."""
    good = parts / "train" / "good"
    (good / "003.png").write_bytes((good / "003.png").read_bytes()[:100])
    (good / "zzz.png").write_text("not a picture")
    with pytest.raises(DatasetError, match=r"2 of 25 images cannot be used \(.*003\.png.*zzz\.png"):
        load_training_set(parts)


@pytest.mark.parametrize("folder", ["empty", "val_only", "missing"])
def test_folder_without_training_images(tmp_path: Path, folder: str) -> None:
    """A folder without good training images is refused with where to put them."""
    if folder != "missing":
        (tmp_path / folder).mkdir()
    if folder == "val_only":
        write(tmp_path / folder / "val" / "good", "a.png", np.zeros((40, 40), np.uint8))
    with pytest.raises(DatasetError, match=r"train.good|does not exist"):
        load_training_set(tmp_path / folder)
