"""Metrics of error maps against masks: pixel AUROC and AUPRO, for any number and size of images in constant memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from onspect.calibration.metrics.image import Areas, Metric
from onspect.runtime.errors import ImageError

FPR_LIMIT = 0.3
"""AUPRO is integrated up to this share of falsely marked normal pixels, the usual choice in the literature."""

_MOST_LABELS = 32  # highest number of values of a mask that can be labels
_FEW_LABELS = 3  # highest number of low values that can be labels; white then marks ignored areas
_LEAST_WHITE = 64  # lowest value that can be white, as the highest value of a mask
_LEAST_LOSSY = 16  # lowest value of a JPEG mask that is more than noise, as its highest value
_EMPTY_OR_FULL = (0, 1, 255, 65535)  # values of uniform masks that mark no pixel or all pixels
_DROPPED_BITS = 11
_BINS = 1 << (31 - _DROPPED_BITS)


def find_bins(values: NDArray[np.float32]) -> NDArray[np.intp]:
    """Return the bin of each value.

    A bin is the leading bits of a float32: 8 bits of exponent and 12 of mantissa. Their order is that of the values.
    Values in the same bin differ by less than 1 part in 4,096.

    Parameters
    ----------
    values
        Finite values, 0 or more, of any shape.

    Returns
    -------
    NDArray[np.intp]
        int [n] for n values in all.
    """
    positive = np.abs(np.asarray(values, np.float32)).ravel()  # otherwise -0.0 would be in the highest bin
    return (positive.view(np.uint32) >> _DROPPED_BITS).astype(np.intp)


def find_edge(position: int) -> float:
    """Return the lowest value of a bin. All values of this bin and of higher bins reach it, and no others.

    Parameters
    ----------
    position
        Number of the bin.

    Returns
    -------
    float
        The lowest value, 0 or more.
    """
    return float(np.array(position << _DROPPED_BITS, np.uint32).view(np.float32))


class ErrorHistogram:
    """Number of error values, or sum of their weights, in a million bins (8 MB)."""

    def __init__(self) -> None:
        self.sums: NDArray[np.float64] = np.zeros(_BINS)

    def add(self, bins: NDArray[np.intp], weights: NDArray[Any] | None = None) -> None:
        """Add values by their bins.

        Parameters
        ----------
        bins
            Bins of the values, from `find_bins`.
        weights
            Weights of the values, [n]; None for 1 each.
        """
        counted = np.bincount(bins, weights)
        self.sums[: len(counted)] += counted

    @property
    def total(self) -> float:
        """Sum over all bins."""
        return float(self.sums.sum())

    def find_quantile(self, share: float) -> float:
        """Return a quantile, exact to the width of one bin. At least one value must have been added.

        Parameters
        ----------
        share
            Share of the values that must be below the quantile, 0 to 1.

        Returns
        -------
        float
            Upper edge of the bin with the quantile: at most 1 - share of the values reach it.
        """
        below = np.cumsum(self.sums)
        return find_edge(int(np.argmax(below / below[-1] >= share)) + 1)

    def count_reaching(self) -> NDArray[np.float64]:
        """Return the sum of each bin and all higher bins.

        Returns
        -------
        NDArray[np.float64]
            float64 [bins].
        """
        return np.asarray(np.cumsum(self.sums[::-1])[::-1])


@dataclass(frozen=True)
class PixelCurves:
    """Pixels that each threshold of the error map marks, from the highest threshold down."""

    false_positive_rate: NDArray[np.float64]
    """Share of the normal pixels that are marked, float64 [thresholds], 0 to 1."""

    true_positive_rate: NDArray[np.float64]
    """Share of the defective pixels that are marked, float64 [thresholds], 0 to 1."""

    overlap: NDArray[np.float64]
    """Share of the pixels of an annotated region that are marked, as the mean over all regions; float64 [thresholds].
    """


@dataclass(frozen=True)
class PixelAreas(Areas):
    """Values of the pixel metrics of a set of error maps."""

    regions: int = 0
    """Number of 8-connected regions of the masks."""

    @property
    def aupro(self) -> float | None:
        """Mean per-region overlap up to `FPR_LIMIT`, divided by that limit, 0 to 1, or None."""
        return self.values["aupro"]

    def to_dict(self) -> dict[str, float | str | None]:
        """Return the values as a JSON object.

        Returns
        -------
        dict[str, float | str | None]
            Values by name, the number of regions, and the reason.
        """
        return super().to_dict() | {"regions": self.regions}


@dataclass(frozen=True)
class PixelPoint:
    """Figures of one threshold of the error map against the masks, exact to the width of a bin; shares of 1."""

    threshold: float
    """Threshold of the error map."""
    precision: float | None
    """Share of the marked pixels that are defective; None if no pixel is marked."""
    recall: float
    """Share of the defective pixels that are marked."""
    fpr: float
    """Share of the normal pixels that are marked."""
    f1: float
    """Harmonic mean of precision and recall."""
    iou: float
    """Pixels that are marked and defective, divided by those that are marked or defective."""


class PixelEvidence:
    """Collects error maps and masks, at the masks' resolution, in constant memory (24 MB).

    AUPRO follows Bergmann et al., "The MVTec Anomaly Detection Dataset", IJCV 129, 2021. It plots the mean overlap of
    marked pixels with the annotated regions of all images against the share of normal pixels that are marked.

    Thresholds are the edges of `find_bins`: values that differ by less than 1 part in 4,096 count as ties.
    """

    def __init__(self) -> None:
        self.regions = 0
        self._normal = ErrorHistogram()
        self._defective = ErrorHistogram()
        self._overlap = ErrorHistogram()

    def add(self, error_map: NDArray[np.float32], mask: NDArray[np.bool_]) -> None:
        """Add an error map and its mask. The map is resized to the mask.

        Parameters
        ----------
        error_map
            Error map, float32 [h, w], 0 or more.
        mask
            bool [H, W], True where the part is defective.
        """
        height, width = mask.shape
        resized = cv2.resize(error_map, (width, height), interpolation=cv2.INTER_LINEAR)
        bins = find_bins(np.asarray(resized, np.float32))
        inside = mask.ravel()
        self._normal.add(bins[~inside])
        if not inside.any():
            return
        self._defective.add(bins[inside])
        count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
        regions = np.asarray(labels).ravel()[inside]
        self._overlap.add(bins[inside], 1.0 / np.bincount(regions)[regions])
        self.regions += count - 1

    def measure(self) -> PixelAreas:
        """Return the metrics of all images that were added.

        Returns
        -------
        PixelAreas
            Values by name; None with a reason if defective or normal pixels are missing.
        """
        if not self.regions or not self._normal.total:
            missing = "defective pixels in any mask" if not self.regions else "normal pixels"
            names = (metric.name for metric in PIXEL_METRICS)
            return PixelAreas(dict.fromkeys(names), f"there are no {missing}", self.regions)
        curves = PixelCurves(
            _accumulate(self._normal, self._normal.total),
            _accumulate(self._defective, self._defective.total),
            _accumulate(self._overlap, self.regions),
        )
        return PixelAreas({metric.name: metric.measure(curves) for metric in PIXEL_METRICS}, regions=self.regions)

    def measure_at(self, threshold: float) -> PixelPoint | None:
        """Return the figures at one threshold of the error map.

        Parameters
        ----------
        threshold
            Threshold of the error map.

        Returns
        -------
        PixelPoint | None
            The figures; None if defective or normal pixels are missing.
        """
        if not self.regions or not self._normal.total:
            return None
        place = int(find_bins(np.array([threshold], np.float32))[0])
        found = float(self._defective.sums[place:].sum())
        wrong = float(self._normal.sums[place:].sum())
        defective = self._defective.total
        return PixelPoint(
            threshold=threshold,
            precision=found / (found + wrong) if found + wrong else None,
            recall=found / defective,
            fpr=wrong / self._normal.total,
            f1=2.0 * found / (found + wrong + defective),
            iou=found / (wrong + defective),
        )

    def find_best_f1(self) -> float | None:
        """Return the threshold of the error map with the highest F1 of its pixels. The same threshold has the highest
        IoU.

        Returns
        -------
        float | None
            The middle one of the thresholds that mark the same pixels; None if defective or normal pixels are missing.
        """
        if not self.regions or not self._normal.total:
            return None
        found, wrong = self._defective.count_reaching(), self._normal.count_reaching()
        f1 = 2.0 * found / (found + wrong + self._defective.total)
        best = int(np.argmax(f1))
        equal = np.flatnonzero((found == found[best]) & (wrong == wrong[best]))
        return find_edge(int(equal[len(equal) // 2]))


def decode_mask(frame: NDArray[Any], *, lossy: bool = False) -> NDArray[np.bool_]:
    """Convert the image of a mask to booleans.

    If a mask has few values (1, numbers of classes, colours of a palette), all pixels but black ones are defective. If
    it has many values, or noise beside the lowest and the highest value, pixels above half of the highest value are
    defective.

    Parameters
    ----------
    frame
        uint8 or uint16, [H, W] or [H, W, channels].
    lossy
        Whether the file is a JPEG.

    Returns
    -------
    NDArray[np.bool_]
        bool [H, W], True where the part is defective.

    Raises
    ------
    ImageError
        If the values do not tell which pixels are defective.
    """
    brightest = frame if frame.ndim == 2 else frame.max(axis=2)
    counts = np.bincount(brightest.ravel())
    values = np.flatnonzero(counts)
    least, most = int(values[0]), int(values[-1])
    if least == most and not (frame != frame[0, 0]).any():
        if most not in _EMPTY_OR_FULL:
            raise ImageError(f"the mask has the value {most} everywhere; mark defects white on black")
        return np.asarray(brightest > 0, np.bool_)
    if lossy and most < _LEAST_LOSSY:
        raise ImageError(f"the mask is a JPEG file with values of at most {most}, like noise; save it as PNG")
    if least > most // 8:
        raise ImageError(f"the mask has no black background: its values are {least} to {most}; mark defects on black")
    low, high = values[(values > 0) & (values <= most // 8)], values[values >= most - most // 8]
    between = values[(values > most // 8) & (values < most - most // 8)]
    half = np.asarray(brightest > most // 2, np.bool_)
    if lossy:
        return half
    if len(values) > _MOST_LABELS:
        if counts[between].sum() > counts[high].sum():
            raise ImageError(f"the mask has {len(values)} values, like a photo; mark defects white on black")
        return half
    if most < _LEAST_WHITE or not len(low):
        return np.asarray(brightest > 0, np.bool_)
    if len(high) == 1 and not len(between) and len(low) <= _FEW_LABELS:
        raise ImageError(
            f"the mask has the values {', '.join(map(str, low))} and {most}, and it is not known which of them mark "
            "defects; mark defects white on black"
        )
    return half


def _accumulate(histogram: ErrorHistogram, whole: float) -> NDArray[np.float64]:
    """Return the share of a histogram that reaches each threshold, from the highest threshold down, starting at 0."""
    return np.concatenate([[0.0], np.cumsum(histogram.sums[::-1]) / whole])


def _measure_auroc(curves: PixelCurves) -> float:
    from sklearn.metrics import auc  # takes a second to load, and moving a threshold does not need it

    return float(auc(curves.false_positive_rate, curves.true_positive_rate))


def _measure_aupro(curves: PixelCurves) -> float:
    return min(1.0, _integrate_up_to(FPR_LIMIT, curves.false_positive_rate, curves.overlap) / FPR_LIMIT)


PIXEL_METRICS = (
    Metric("auroc", "pixel AUROC", "area under the ROC curve over pixels", _measure_auroc),
    Metric("aupro", "AUPRO", f"overlap with defects, up to {FPR_LIMIT:.0%} falsely marked pixels", _measure_aupro),
)
"""All pixel metrics, in the order in which they are shown."""


def _integrate_up_to(limit: float, x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Return the trapezoid area under y over x from 0 to limit. x is ascending; y is interpolated at the limit."""
    from sklearn.metrics import auc

    inside = int(np.searchsorted(x, limit, side="right"))
    last = y[inside - 1]
    if inside < len(x):
        last += (y[inside] - last) * (limit - x[inside - 1]) / (x[inside] - x[inside - 1])
    return float(auc(np.append(x[:inside], limit), np.append(y[:inside], last)))
