from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from onspect.calibration.metrics.pixel import FPR_LIMIT, ErrorHistogram, PixelEvidence, decode_mask, find_bins


def draw(seed: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return maps on a coarse grid of values, exact in every bin, and masks with some regions, one of them empty."""
    generator = np.random.default_rng(seed)
    maps, masks = [], []
    for number in range(4):
        mask = np.zeros((20, 30), bool)
        if number:
            mask[2:5, 3:9] = True
            mask[10 : 10 + number, 20:28] = True
            mask[10 + number, 28] = True  # touches the region above by a corner
        noise = generator.integers(0, 200, mask.shape) + mask * generator.integers(0, 120, mask.shape)
        maps.append((noise / 256).astype(np.float32))
        masks.append(mask)
    return maps, masks


def compute_aupro(maps: list[np.ndarray], masks: list[np.ndarray]) -> float:
    """Return AUPRO by trying every value as a threshold, straight from its definition."""
    regions = []
    for number, mask in enumerate(masks):
        count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
        regions += [(number, labels == label) for label in range(1, count)]
    normal = np.concatenate([m[~mask] for m, mask in zip(maps, masks, strict=True)])
    points = [(0.0, 0.0)]
    for threshold in np.unique(np.concatenate([m.ravel() for m in maps]))[::-1]:
        overlap = np.mean([np.mean(maps[number][region] >= threshold) for number, region in regions])
        points.append((float(np.mean(normal >= threshold)), float(overlap)))
    area = 0.0
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if x1 > FPR_LIMIT:
            y1 = y0 + (y1 - y0) * (FPR_LIMIT - x0) / (x1 - x0)
            return (area + (FPR_LIMIT - x0) * (y0 + y1) / 2) / FPR_LIMIT
        area += (x1 - x0) * (y0 + y1) / 2
    raise AssertionError("the curve never reaches the limit")


def collect(maps: list[np.ndarray], masks: list[np.ndarray]) -> PixelEvidence:
    """Return evidence that has seen all maps and masks."""
    evidence = PixelEvidence()
    for error_map, mask in zip(maps, masks, strict=True):
        evidence.add(error_map, mask)
    return evidence


@pytest.mark.parametrize("seed", range(4))
def test_streamed_areas_equal_the_definition(seed: int) -> None:
    """Pixel AUROC and AUPRO from the stream are those computed from all pixels at once."""
    maps, masks = draw(seed)
    areas = collect(maps, masks).measure()
    truth = np.concatenate([mask.ravel() for mask in masks])
    assert areas.auroc == pytest.approx(roc_auc_score(truth, np.concatenate([m.ravel() for m in maps])), abs=1e-12)
    assert areas.aupro == pytest.approx(compute_aupro(maps, masks), abs=1e-12)
    assert areas.regions == 6


def test_a_perfect_map_has_full_areas() -> None:
    """A map that is high exactly inside the mask scores 1 in both."""
    _, masks = draw(0)
    areas = collect([mask.astype(np.float32) for mask in masks], masks).measure()
    assert (areas.auroc, areas.aupro) == (pytest.approx(1.0), pytest.approx(1.0))


def test_small_regions_weigh_as_much_as_large_ones() -> None:
    """Finding the large region and missing the small one is half of AUPRO, though most defective pixels are found."""
    mask = np.zeros((50, 50), bool)
    mask[:20, :20] = True
    mask[40:42, 40:42] = True
    found = np.zeros((50, 50), np.float32)
    found[:20, :20] = 1.0
    # The curve rises from (0, 0.5) to (1, 1): at 0.3 it is 0.65, so the mean up to there is 0.575.
    areas = collect([found], [mask]).measure()
    assert areas.aupro == pytest.approx(0.575)
    assert areas.auroc is not None
    assert areas.auroc > 0.99


def test_maps_are_resized_to_their_masks() -> None:
    """A map at the model's size is compared with a mask at the image's size."""
    mask = np.zeros((40, 60), bool)
    mask[:, 30:] = True
    areas = collect([np.array([[0.0, 1.0]], np.float32)], [mask]).measure()
    assert areas.auroc == pytest.approx(1.0)


@pytest.mark.parametrize(("value", "missing"), [(False, "defective pixels in any mask"), (True, "normal pixels")])
def test_areas_without_one_kind_of_pixel_are_undefined_with_a_reason(value: bool, missing: str) -> None:
    """With normal or with defective pixels only there is no area, and the reason names the missing kind."""
    areas = collect([np.ones((4, 4), np.float32)], [np.full((4, 4), value)]).measure()
    assert (areas.auroc, areas.aupro) == (None, None)
    assert areas.reason == f"there are no {missing}"


def test_a_mask_is_what_is_not_black() -> None:
    """Ones, class numbers, 16 bits and palettes are masks; of many grey levels the brighter half is."""
    assert decode_mask(np.array([[0, 100, 255]], np.uint8)).tolist() == [[False, True, True]]
    assert decode_mask(np.array([[0, 1, 7]], np.uint16)).tolist() == [[False, True, True]]
    assert decode_mask(np.array([[255, 255]], np.uint8)).tolist() == [[True, True]]
    assert decode_mask(np.array([[0, 0]], np.uint8)).tolist() == [[False, False]]
    assert decode_mask(np.array([[[0, 0, 120], [0, 0, 0]]], np.uint8)).tolist() == [[True, False]]
    noisy = np.array([[*range(20), *range(236, 256)]], np.uint8)  # as JPEG leaves it
    assert decode_mask(noisy).tolist() == [[False] * 20 + [True] * 20]


def test_bins_order_as_values_do() -> None:
    """A larger value never has a smaller bin, from zero over the tiniest float to the largest."""
    values = np.sort(np.random.default_rng(0).lognormal(0, 20, 1000).astype(np.float32))
    values = np.concatenate([[0.0, 1e-45], values, [np.finfo(np.float32).max]]).astype(np.float32)
    assert (np.diff(find_bins(np.sort(values))) >= 0).all()


def test_values_that_differ_enough_have_bins_of_their_own() -> None:
    """Values more than 1 part in 4,096 apart fall into different bins."""
    values = (np.float32(1.0) * (1 + 1 / 4096) ** np.arange(0, 100, dtype=np.float32)).astype(np.float32)
    assert len(set(find_bins(values[::2]))) == 50


def test_negative_zero_is_zero() -> None:
    """The two zeros share the lowest bin."""
    assert list(find_bins(np.array([-0.0, 0.0], np.float32))) == [0, 0]


@pytest.mark.parametrize("share", [0.5, 0.9, 0.999, 1.0])
def test_at_most_the_rest_reaches_a_quantile(share: float) -> None:
    """At most 1 - share of the values are >= the quantile, and more than that are >= a value one bin lower."""
    values = np.random.default_rng(1).gamma(2.0, 0.1, 5000).astype(np.float32)
    histogram = ErrorHistogram()
    for part in np.split(values, 5):
        histogram.add(find_bins(part))
    found = histogram.find_quantile(share)
    assert np.mean(values < found) >= share
    assert np.mean(values < found * (1 - 2 / 4096)) < share
