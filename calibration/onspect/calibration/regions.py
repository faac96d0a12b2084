"""Regions: which cut of the error map marks them, and how small a region may be and still be reported."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from onspect.calibration.masks import MaskReader
from onspect.calibration.report.histogram import ErrorHistogram, find_bins
from onspect.calibration.scores import Observation
from onspect.calibration.statistics.support import find_unsupported_limit
from onspect.runtime.conformal import format_rate
from onspect.runtime.dataset.folder import LabelledImage
from onspect.runtime.errors import ChoiceError, DatasetError
from onspect.runtime.inspection.regions import find_regions
from onspect.runtime.model.schema import Rule, Threshold

PIXEL_FPR = Rule("pixel_fpr", rate=0.001)
"""The rule for the error map's cut where none is given and the score is not the map's maximum.

One pixel in a thousand marks a few pixels on a good part, so good parts stay almost clean, and what is higher than that
is worth a box; at 0.5% a 256 x 256 map of a good part would have 328 marked pixels on average, at 0.01% a single odd
image among a hundred would set the cut alone.
"""


@dataclass(frozen=True)
class RegionDemand:
    """What is asked of regions.

    map: a rule for the error map's cut, ``pixel_fpr`` (at most the share `rate` of the good images' inspected pixels is
    marked) or ``pixel_f1`` (highest F1 of the pixels against the masks); None for the score's own cut, or `PIXEL_FPR`
    where the score is not the map's maximum. area: a rule for the least area, ``region_area`` (`value` pixels of the
    map) or ``region_fpr`` (at most the share `rate` of the good images has a region as large); None for all regions.
    """

    OPTIONS: ClassVar = ("pixel_fpr", "pixel_f1", "region_fpr", "region_area")
    """The options of `from_options`."""

    map: Rule | None = None
    area: Rule | None = None

    @classmethod
    def from_options(
        cls,
        *,
        pixel_fpr: float | None = None,
        pixel_f1: bool = False,
        region_fpr: float | None = None,
        region_area: int | None = None,
    ) -> RegionDemand:
        """Return what the options of ``onspect calibrate`` ask of regions; raises ChoiceError where they clash."""
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
    """What was chosen.

    map, area: as in `Threshold`. map_rule, area_rule: as they stand in the file, the first with the cut that it gave as
    its value. unsupported: what was asked for that so many images do not support. notes: what else there is to say.
    shown: how many images have a region, in words; empty where that was not counted.
    """

    map: float
    area: int
    map_rule: Rule | None
    area_rule: Rule | None
    unsupported: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    shown: str = ""


class PixelScores:
    """Gathers what the error map's cut is chosen on, in constant memory: errors of good images and, for F1, masks.

    inspected: the model's share of places that are inspected, as in `Score`; the others are 0 and count for nothing.
    """

    def __init__(self, demand: RegionDemand, inspected: float = 1.0) -> None:
        self._good = ErrorHistogram()
        self._inspected = inspected
        by_masks = demand.map is not None and demand.map.name == "pixel_f1"
        self._masks = MaskReader(wanted=True) if by_masks else None

    def add(self, observation: Observation) -> None:
        """Take one image's error map."""
        if not observation.scored.image.defective:
            self._good.add(find_bins(observation.error_map))
        if self._masks is not None:
            self._masks.add(observation)

    def find_cut(self, rule: Rule) -> float:
        """Return the cut of the error map by a rule; raises DatasetError where no mask can be used for one."""
        if rule.name == "pixel_fpr":
            return self._good.find_quantile(1.0 - (rule.rate or 0.0) * self._inspected)
        cut = None if self._masks is None else self._masks.find_best_f1()
        if cut is None:
            raise DatasetError(
                "--pixel-f1 needs masks of the defects, and not one can be used; put them into ground_truth/, "
                "or use --pixel-fpr 0.1%, which needs good images only"
            )
        return cut

    def list_notes(self) -> tuple[str, ...]:
        """Return what there is to say about the masks, one sentence each."""
        if self._masks is None or not (unreadable := self._masks.unreadable):
            return ()
        masks = f"{len(unreadable)} mask{'s' * (len(unreadable) != 1)} cannot be used, such as {unreadable[0]}"
        return (f"{masks}: the cut leaves their images out",)


def check_regions(demand: RegionDemand, images: Sequence[LabelledImage]) -> None:
    """Raise DatasetError where the images cannot give what is asked of regions, before any of them is scored."""
    if demand.map is not None and demand.map.name == "pixel_f1" and not any(image.mask for image in images):
        raise DatasetError(
            f"--pixel-f1 needs masks of the defects, and none of the {len(images)} images has one; "
            "put them into ground_truth/, or use --pixel-fpr 0.1%, which needs good images only"
        )


def choose_map(demand: RegionDemand, pixels: PixelScores, cut: float, *, is_peak: bool) -> RegionCuts:
    """Return the cut of the error map, with no least area yet.

    cut is the lower of the score's; is_peak tells whether the score is the map's maximum. There the map's cut is never
    above it, so that every part that is not ``ok`` shows where.
    """
    if demand.map is None and is_peak:
        return RegionCuts(cut, 0, None, None)
    rule = demand.map or PIXEL_FPR
    found = pixels.find_cut(rule)
    rule, notes = dataclasses.replace(rule, value=found), pixels.list_notes()
    if not is_peak or found <= cut:
        return RegionCuts(found, 0, rule, None, notes=notes)
    note = (
        f"the pixels' cut, {found:.6g}, is above the score's: regions begin at {cut:.6g}, "
        "so that every part that is not ok shows where"
    )
    return RegionCuts(cut, 0, rule, None, notes=(*notes, note))


def move_map(old: Threshold, map_rule: Rule | None, cut: float, *, is_peak: bool) -> float:
    """Return the cut of the error map after the score's lower cut has moved, by the rule that it was chosen by."""
    if not is_peak:
        return old.map
    return cut if map_rule is None or map_rule.value is None else min(map_rule.value, cut)


def choose_area(cuts: RegionCuts, rule: Rule | None, observations: Callable[[], Iterable[Observation]]) -> RegionCuts:
    """Return the cuts with the least area that a rule asks for; observations are the images' once more, if needed."""
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
    """Return the size of the largest region of an error map, in its pixels; 0 where there is none."""
    rows, columns = error_map.shape
    regions = find_regions(error_map, Threshold(cut, cut), columns, rows)
    return max((region.area for region in regions), default=0)


def find_least_area(largest: Sequence[int], rate: float) -> int:
    """Return the smallest area that the largest region reaches on at most the share `rate` of the images.

    It is 0, and leaves out nothing, where no more than that have a region at all.

    >>> find_least_area([0, 3, 9, 4], 0.25)
    5
    >>> find_least_area([0, 0, 9, 0], 0.25)
    0
    """
    allowed = math.floor(round(rate * len(largest), 9))
    excess = sorted(largest, reverse=True)[allowed:]
    return excess[0] + 1 if excess and excess[0] else 0


def describe_regions(map_rule: Rule | None, area_rule: Rule | None) -> str:
    """Return the rules in words with their numbers; empty where regions follow the score's own cut."""
    words = []
    if map_rule is not None:
        share = "" if map_rule.rate is None else format_rate(map_rule.rate)
        words.append(
            "pixels by highest F1" if map_rule.name == "pixel_f1" else f"at most {share} of good parts' pixels"
        )
    if area_rule is not None and area_rule.rate is not None:
        words.append(f"a region on at most {format_rate(area_rule.rate)} of good parts")
    return ", ".join(words)
