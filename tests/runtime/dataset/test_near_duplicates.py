from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from onspect.runtime.dataset.near_duplicates import (
    BITS,
    LIMIT,
    choose_limit,
    dct_features,
    find_near_duplicates,
    hash_look,
    learn_near_duplicates,
)
from onspect.runtime.errors import ModelFileError
from onspect.runtime.model.file import read_model_file, restamp, stamp
from onspect.runtime.model.schema import Looks, Threshold

SIDE = 64


def picture(seed: int) -> NDArray[np.uint8]:
    """Return a mono picture of soft spots, as the model takes it."""
    noise = np.random.default_rng(seed).normal(0, 1, (SIDE, SIDE)).astype(np.float32)
    soft = cv2.GaussianBlur(noise, (0, 0), 3)
    return np.asarray(128 + 50 * soft / np.abs(soft).max(), np.uint8)[:, :, None]


def fingerprints(count: int) -> list[str]:
    """Return this number of fingerprints, ascending."""
    return [f"{number:016x}" for number in range(count)]


@pytest.fixture(scope="module")
def looks() -> Looks:
    """Return the looks of forty pictures."""
    learned = learn_near_duplicates(np.stack([picture(seed) for seed in range(40)]), fingerprints(40))
    assert learned is not None
    return learned


def test_pictures_saved_anew_are_known_again(looks: Looks) -> None:
    """A picture that was compressed, brightened, made noisy or shrunk looks almost like itself; others do not."""
    random = np.random.default_rng(1)
    for seed in range(10):
        grey = picture(seed)[:, :, 0]
        compressed = cv2.imdecode(cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], cv2.IMREAD_GRAYSCALE)
        changed = [compressed, cv2.convertScaleAbs(grey, alpha=1.1), cv2.resize(grey, (48, 40))]
        changed.append(np.clip(grey + random.normal(0, 2, grey.shape), 0, 255).astype(np.uint8))
        hashes = [hash_look(dct_features(np.asarray(image)[:, :, None]), looks) for image in changed]
        assert find_near_duplicates(hashes, looks.hashes) == [True] * 4
    others = [hash_look(dct_features(picture(seed)), looks) for seed in range(100, 140)]
    assert find_near_duplicates(others, looks.hashes) == [False] * 40


def test_what_all_parts_have_in_common_says_nothing() -> None:
    """Parts that share a strong outline are not taken for one another, and a copy still is."""
    outline = np.zeros((SIDE, SIDE, 1), np.float32)
    outline[8:56, 8:40] = 100
    parts = [np.asarray(np.clip(outline + picture(seed) - 64.0, 0, 255), np.uint8) for seed in range(80)]
    looks = learn_near_duplicates(np.stack(parts[:40]), fingerprints(40))
    assert looks is not None
    others = [hash_look(dct_features(part), looks) for part in parts[40:]]
    assert find_near_duplicates(others, looks.hashes) == [False] * 40
    assert find_near_duplicates([hash_look(dct_features(parts[3]), looks)], looks.hashes) == [True]


def test_twins_differ_in_few_bits() -> None:
    """Hashes that differ in as many bits as the limit are twins, in one more they are not; an empty one never is."""
    known = "00" * (BITS // 8)
    hashes = [f"{2**bits - 1:016x}" for bits in (0, LIMIT, LIMIT + 1)]
    assert find_near_duplicates([*hashes, ""], [known, ""]) == [True, True, False, False]
    assert find_near_duplicates(hashes, []) == [False] * 3
    assert find_near_duplicates(hashes * 700, [known]) == [True, True, False] * 700


def test_image_without_structure_has_no_look(looks: Looks) -> None:
    """Pictures of one brightness are not taken for one another: there is nothing to know them by."""
    assert dct_features(np.full((SIDE, SIDE, 1), 90, np.uint8)) is None
    assert hash_look(None, looks) == ""
    blank = np.full((40, SIDE, SIDE, 1), 90, np.uint8)
    assert learn_near_duplicates(blank, fingerprints(40)) is None


def test_few_training_images_teach_nothing() -> None:
    """Medians of a handful of images mean nothing, so there are no looks."""
    assert learn_near_duplicates(np.stack([picture(seed) for seed in range(15)]), fingerprints(15)) is None


def test_of_many_images_those_with_the_smallest_fingerprints_are_kept() -> None:
    """Beyond the limit the same images are kept as in the file's record of fingerprints."""
    pictures = np.stack([picture(seed) for seed in range(30)])
    backwards = fingerprints(30)[::-1]
    some = learn_near_duplicates(pictures, backwards, most=20)
    assert some == learn_near_duplicates(pictures[10:][::-1], fingerprints(20))


def test_colour_counts_as_grey(looks: Looks) -> None:
    """A colour picture has the look of its grey self."""
    grey = picture(5)
    assert hash_look(dct_features(np.repeat(grey, 3, axis=2)), looks) == hash_look(dct_features(grey), looks)


def test_looks_are_in_the_file_and_stay_there(
    tmp_path: Path, looks: Looks, tiny_graph: Callable[..., bytes], tiny_info: Callable[..., object]
) -> None:
    """Looks are read back as stamped, and a new threshold keeps them; older files have none."""
    info = tiny_info(threshold=Threshold(0.5, 0.5))
    path = tmp_path / "part.onnx"
    path.write_bytes(stamp(tiny_graph(), info, [], looks))  # type: ignore[arg-type]
    file = read_model_file(path)
    assert file.looks == looks
    assert file.info.calibration is not None
    restamp(file, Threshold(0.25, 0.25), file.info.calibration)
    assert read_model_file(path).looks == looks
    path.write_bytes(stamp(tiny_graph(), info, []))  # type: ignore[arg-type]
    assert read_model_file(path).looks is None


def test_damaged_looks_are_damage(
    tmp_path: Path, looks: Looks, tiny_graph: Callable[..., bytes], tiny_info: Callable[..., object]
) -> None:
    """A changed digit among the looks is found by their checksum."""
    data = stamp(tiny_graph(), tiny_info(), [], looks)  # type: ignore[arg-type]
    place = data.index(b"onspect.looks") + 40
    path = tmp_path / "part.onnx"
    path.write_bytes(data[:place] + (b"A" if data[place : place + 1] != b"A" else b"B") + data[place + 1 :])
    with pytest.raises(ModelFileError, match="damaged"):
        read_model_file(path)


def test_images_that_only_look_alike_are_no_twins() -> None:
    """The limit falls where training images without a twin are nearly as close, and where every fifth has a twin."""
    random = np.random.default_rng(0)

    def flip(hash_text: str, count: int) -> str:
        bits = np.unpackbits(np.frombuffer(bytes.fromhex(hash_text), np.uint8))
        bits[random.choice(BITS, count, replace=False)] ^= 1
        return np.packbits(bits).tobytes().hex()

    apart = [random.bytes(8).hex() for _ in range(100)]
    assert choose_limit(apart) == LIMIT
    assert choose_limit([*apart, flip(apart[0], 1), flip(apart[1], 2)]) == LIMIT
    alike = [flip(apart[0], 3) for _ in range(100)]
    nearest = choose_limit(alike)
    assert nearest < LIMIT
    assert choose_limit([*apart, *(flip(text, 1) for text in apart[:60])]) == -1
    assert choose_limit(apart[:3]) == LIMIT


@pytest.mark.slow
def test_no_drawn_part_is_taken_for_another() -> None:
    """Parts of the demo, drawn independently, are not near-duplicates of each other."""
    parts = pytest.importorskip("onspect.demo.parts")
    drawn = [parts.draw_part(np.random.default_rng(seed), size=128)[0][:, :, None] for seed in range(240)]
    looks = learn_near_duplicates(np.stack(drawn[:100]), fingerprints(100))
    assert looks is not None
    others = [hash_look(dct_features(part), looks) for part in drawn[100:]]
    assert sum(find_near_duplicates(others, looks.hashes, choose_limit(looks.hashes))) == 0
