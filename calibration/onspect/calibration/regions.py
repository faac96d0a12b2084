"""Regions: the threshold of the error map that marks them, and the smallest area that is reported."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from onspect.calibration.masks import MaskReader
from onspect.calibration.metrics.pixel import ErrorHistogram, find_bins
from onspect.calibration.scores import Observation
from onspect.calibration.statistics.support import find_unsupported_limit
from onspect.runtime.conformal import format_rate
from onspect.runtime.dataset.folder import LabelledImage
from onspect.runtime.errors import ChoiceError, DatasetError
from onspect.runtime.inspection.regions import find_regions
from onspect.runtime.model.schema import Rule, Threshold

PIXEL_FPR = Rule("pixel_fpr", rate=0.001)
"""Rule for the threshold of the error map if no rule is given and the score is not the map's maximum.

One pixel in a thousand marks only a few pixels of a good part, so good parts have almost no regions. At 0.5%, a 256 x
256 map of a good part would have 328 marked pixels on average. At 0.01%, one unusual image among a hundred would decide
the threshold alone.
"""


@dataclass(frozen=True)
class RegionDemand:
    """Requirements for regions."""

    OPTIONS: ClassVar = ("pixel_fpr", "pixel_f1", "region_fpr", "region_area")
    """Names of the options of `from_options`."""

    map: Rule | None = None
    """Rule for the threshold of the error map. ``pixel_fpr`` marks at most the share `rate` of the inspected pixels of
    good images; ``pixel_f1`` has the highest F1 against the masks. None: the score's own threshold, or `PIXEL_FPR` if
    the score is not the map's maximum.
    """
    area: Rule | None = None
    """Rule for the smallest area. ``region_area`` has `value` pixels of the map; with ``region_fpr``, at most the share
    `rate` of the good images has a region of this area. None: all regions are reported.
    """

    @classmethod
    def from_options(
        cls,
        *,
        pixel_fpr: float | None = None,
        pixel_f1: bool = False,
        region_fpr: float | None = None,
        region_area: int | None = None,
    ) -> RegionDemand:
        """Return the requirements that the options of ``onspect calibrate`` name.

        Parameters
        ----------
        pixel_fpr
            Highest share of the pixels of good parts that may be marked, 0 to 1.
        pixel_f1
            Whether the threshold has the highest F1 against the masks.
        region_fpr
            Highest share of good parts with a region, 0 to 1.
        region_area
            Smallest area in pixels of the error map, 1 or more.

        Returns
        -------
        RegionDemand
            The rules.

        Raises
        ------
        ChoiceError
            If options exclude each other.
        """
        if pixel_f1 and pixel_fpr is not None:
            raise ChoiceError("--pixel-fpr and --pixel-f1 exclude each other; give one of them")
        if region_fpr is not None and region_area is not None:
            raise ChoiceError("--region-fpr and --region-area exclude each other; give one of them")
        pixels = Rule("pixel_f1") if pixel_f1 else None if pixel_fpr is None else Rule("pixel_fpr", rate=pixel_fpr)
        if region_fpr is not None:
            return cls(pixels, Rule("region_fpr", rate=region_fpr))
        return cls(pixels, None if region_area is None else Rule("region_area", value=region_area))


@dataclass(frozen=True)
class RegionCuts:
    """Chosen thresholds for regions."""

    map: float
    """Threshold of the error map, as in `Threshold`."""
    area: int
    """Smallest area in pixels of the error map; 0 for all regions."""
    map_rule: Rule | None
    """Rule of the map's threshold, as the file has it; its value is the threshold that the rule gave."""
    area_rule: Rule | None
    """Rule of the smallest area, as the file has it."""
    unsupported: tuple[str, ...] = ()
    """Requirements that the images are too few to support, one sentence each."""
    notes: tuple[str, ...] = ()
    """Other remarks, one sentence each."""
    shown: str = ""
    """Text with the number of images that have a region; empty if they were not counted."""


class PixelScores:
    """Collects the data for the threshold of the error map in constant memory: errors of good images and, for F1,
    masks.

    `inspected` is the share of the map that the model inspects, as in `Score`. The other places are 0 and do not count.
    """

    def __init__(self, demand: RegionDemand, inspected: float = 1.0) -> None:
        self._good = ErrorHistogram()
        self._inspected = inspected
        by_masks = demand.map is not None and demand.map.name == "pixel_f1"
        self._masks = MaskReader(wanted=True) if by_masks else None

    def add(self, observation: Observation) -> None:
        """Add the error map of an image.

        Parameters
        ----------
        observation
            A scored image with its error map.
        """
        if not observation.scored.image.defective:
            self._good.add(find_bins(observation.error_map))
        if self._masks is not None:
            self._masks.add(observation)

    def find_cut(self, rule: Rule) -> float:
        """Return the threshold of the error map by a rule.

        Parameters
        ----------
        rule
            ``pixel_fpr`` or ``pixel_f1``.

        Returns
        -------
        float
            A value of the error map.

        Raises
        ------
        DatasetError
            If the rule needs masks and no mask can be used.
        """
        if rule.name == "pixel_fpr":
            return self._good.find_quantile(1.0 - (rule.rate or 0.0) * self._inspected)
        cut = None if self._masks is None else self._masks.find_best_f1()
        if cut is None:
            raise DatasetError(
                "--pixel-f1 needs masks of the defects, and none can be used; put them into ground_truth/, "
                "or use --pixel-fpr 0.1%, which needs good images only"
            )
        return cut

    def list_notes(self) -> tuple[str, ...]:
        """Return the faults of the masks.

        Returns
        -------
        tuple[str, ...]
            One sentence for each fault.
        """
        if self._masks is None or not (unreadable := self._masks.unreadable):
            return ()
        masks = f"{len(unreadable)} mask{'s' * (len(unreadable) != 1)} cannot be used, such as {unreadable[0]}"
        return (f"{masks}: their images are left out",)


def check_regions(demand: RegionDemand, images: Sequence[LabelledImage]) -> None:
    """Check that the images can meet the requirements for regions, before any image is scored.

    Parameters
    ----------
    demand
        The requirements.
    images
        Labelled images.

    Raises
    ------
    DatasetError
        If masks are required and no image has one.
    """
    if demand.map is not None and demand.map.name == "pixel_f1" and not any(image.mask for image in images):
        raise DatasetError(
            f"--pixel-f1 needs masks of the defects, and none of the {len(images)} images has one; "
            "put them into ground_truth/, or use --pixel-fpr 0.1%, which needs good images only"
        )


def choose_map(demand: RegionDemand, pixels: PixelScores, cut: float, *, is_peak: bool) -> RegionCuts:
    """Return the threshold of the error map, without a smallest area.

    If the score is the map's maximum, the map's threshold is at most the score's. Then every part that is not ``ok``
    has a region.

    Parameters
    ----------
    demand
        The requirements.
    pixels
        Errors of the images.
    cut
        The lower threshold of the score.
    is_peak
        Whether the score is the map's maximum.

    Returns
    -------
    RegionCuts
        The threshold with its rule and remarks.
    """
    if demand.map is None and is_peak:
        return RegionCuts(cut, 0, None, None)
    rule = demand.map or PIXEL_FPR
    found = pixels.find_cut(rule)
    rule, notes = dataclasses.replace(rule, value=found), pixels.list_notes()
    if not is_peak or found <= cut:
        return RegionCuts(found, 0, rule, None, notes=notes)
    note = (
        f"the pixels' threshold, {found:.6g}, is above the score's: regions begin at {cut:.6g}, "
        "so that every part that is not ok has a region"
    )
    return RegionCuts(cut, 0, rule, None, notes=(*notes, note))


def move_map(old: Threshold, map_rule: Rule | None, cut: float, *, is_peak: bool) -> float:
    """Return the threshold of the error map after the score's lower threshold has moved.

    Parameters
    ----------
    old
        Thresholds before the move.
    map_rule
        Rule that the map's threshold was chosen by, or None.
    cut
        The new lower threshold of the score.
    is_peak
        Whether the score is the map's maximum.

    Returns
    -------
    float
        Threshold of the error map.
    """
    if not is_peak:
        return old.map
    return cut if map_rule is None or map_rule.value is None else min(map_rule.value, cut)


def choose_area(cuts: RegionCuts, rule: Rule | None, observations: Callable[[], Iterable[Observation]]) -> RegionCuts:
    """Return thresholds for regions with the smallest area that a rule requires.

    Parameters
    ----------
    cuts
        Thresholds without a smallest area.
    rule
        Rule for the smallest area; None for all regions.
    observations
        Returns the scored images once more. Called only if the rule needs them.

    Returns
    -------
    RegionCuts
        The thresholds with area, rule and unsupported requirements.
    """
    if rule is None:
        return cuts
    if rule.rate is None:
        return dataclasses.replace(cuts, area=round(rule.value or 0.0), area_rule=rule)
    largest: dict[bool, list[int]] = {False: [], True: []}
    for observation in observations():
        largest[observation.scored.image.defective].append(find_largest(observation.error_map, cuts.map))
    good, defective = largest[False], largest[True]
    area = find_least_area(good, rule.rate)
    kept = [sum(size >= max(1, area) for size in sizes) for sizes in (good, defective)]
    lead = f"you asked for a region on at most {format_rate(rule.rate)} of good parts"
    claim = find_unsupported_limit(rule.rate, lead, "showing one", kept[0], len(good))
    return dataclasses.replace(
        cuts,
        area=area,
        area_rule=rule,
        unsupported=() if claim is None else (claim,),
        shown=f"{kept[0]} of {len(good)} good and {kept[1]} of {len(defective)} defective images have one",
    )


def find_largest(error_map: NDArray[np.float32], cut: float) -> int:
    """Return the size of the largest region of an error map.

    Parameters
    ----------
    error_map
        float32 [h, w], 0 or more.
    cut
        Threshold of the error map.

    Returns
    -------
    int
        Pixels of the error map; 0 if there is no region.
    """
    rows, columns = error_map.shape
    regions = find_regions(error_map, Threshold(cut, cut), columns, rows)
    return max((region.area for region in regions), default=0)


def find_least_area(largest: Sequence[int], rate: float) -> int:
    """Return the smallest area that the largest region reaches on at most a given share of the images.

    Parameters
    ----------
    largest
        Size of the largest region of each image, in pixels of the error map.
    rate
        Highest share of the images, 0 to 1.

    Returns
    -------
    int
        Pixels of the error map; 0 if no more images than that have a region at all.

    Examples
    --------
    >>> find_least_area([0, 3, 9, 4], 0.25)
    5
    >>> find_least_area([0, 0, 9, 0], 0.25)
    0
    """
    allowed = math.floor(round(rate * len(largest), 9))
    excess = sorted(largest, reverse=True)[allowed:]
    return excess[0] + 1 if excess and excess[0] else 0


def describe_regions(map_rule: Rule | None, area_rule: Rule | None) -> str:
    """Return a description of the rules for regions.

    Parameters
    ----------
    map_rule
        Rule of the map's threshold, or None.
    area_rule
        Rule of the smallest area, or None.

    Returns
    -------
    str
        A phrase with the numbers; empty if regions follow the score's own threshold.
    """
    words = []
    if map_rule is not None:
        share = "" if map_rule.rate is None else format_rate(map_rule.rate)
        words.append(
            "pixels by highest F1" if map_rule.name == "pixel_f1" else f"at most {share} of good parts' pixels"
        )
    if area_rule is not None and area_rule.rate is not None:
        words.append(f"a region on at most {format_rate(area_rule.rate)} of good parts")
    return ", ".join(words)
