"""What a model file says about itself: the fields of its metadata. docs/model-file.md defines them."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass, field
from typing import Any

from onspect.runtime.text import count_of

FORMAT_VERSION = 4
"""The newest format version that this release reads. It writes the oldest that judges alike: see `_needed_version`."""


@dataclass(frozen=True)
class SourceLimits:
    """What a frame must be like before it is resized: what training saw, so that another camera mode is noticed.

    channels: the channel counts accepted, of 1 (mono) and 3 (colour).
    width, height: lowest and highest accepted, in pixels; None accepts any.
    """

    channels: tuple[int, ...]
    width: tuple[int, int] | None
    height: tuple[int, int] | None


Polygon = tuple[tuple[int, int], ...]
"""Corners (x, y) in pixels, at least three."""

Rectangle = tuple[int, int, int, int]
"""x and y of the top left pixel, width and height, in pixels."""


@dataclass(frozen=True)
class RegionOfInterest:
    """The part of a frame that is inspected, in pixels of the frame; with an alignment, of the reference's frame.

    box: the rectangle that a frame is cropped to. rectangles, polygons: the places that are inspected; all of the box
    where there are none. ignored_rectangles, ignored_polygons: places that are not inspected. frame: width and height
    of the frame that the region was drawn on. Raises ValueError if the box is empty or leaves that frame, or
    if a polygon has fewer than three corners.
    """

    box: Rectangle
    frame: tuple[int, int]
    rectangles: tuple[Rectangle, ...] = ()
    polygons: tuple[Polygon, ...] = ()
    ignored_rectangles: tuple[Rectangle, ...] = ()
    ignored_polygons: tuple[Polygon, ...] = ()

    def __post_init__(self) -> None:
        (x, y, width, height), (across, down) = self.box, self.frame
        if min(x, y) < 0 or min(width, height) < 1 or x + width > across or y + height > down:
            raise ValueError(f"the region {width}x{height} at {x},{y} does not fit into {across}x{down} pixels")
        if any(len(polygon) < 3 for polygon in (*self.polygons, *self.ignored_polygons)):
            raise ValueError("a polygon has fewer than three corners")

    def describe(self) -> str:
        """Return the region in words, such as ``320x320 at 160,80 of 640x480 pixels, 1 ignored area``."""
        x, y, width, height = self.box
        ignored = len(self.ignored_rectangles) + len(self.ignored_polygons)
        shapes = ((len(self.rectangles), "rectangle"), (len(self.polygons), "polygon"), (ignored, "ignored area"))
        words = f"{width}x{height} at {x},{y} of {self.frame[0]}x{self.frame[1]} pixels"
        return words + "".join(f", {count_of(count, noun)}" for count, noun in shapes if count)


@dataclass(frozen=True)
class Alignment:
    """How the part is found in a frame, before the crop.

    patch: the place of the reference in the frame that it was taken from, in pixels. reference: a mono 8-bit PNG of the
    patch, shrunk, as base64 text. turn: the largest rotation either way, 0 to 180 degrees. scale: the largest change of
    size either way, a share from 0 to 0.2. confidence: the least correlation, 0 to 1, at which the part is found.
    pictures: the good pictures that it was chosen on. Raises ValueError if a value is outside its range.
    """

    patch: Rectangle
    reference: str = field(repr=False)
    turn: float
    scale: float
    confidence: float
    pictures: int

    def __post_init__(self) -> None:
        if not (0.0 <= self.turn <= 180.0 and 0.0 <= self.scale <= 0.2 and 0.0 < self.confidence < 1.0):
            raise ValueError(f"turn {self.turn}, scale {self.scale} or confidence {self.confidence} is out of range")

    def describe(self) -> str:
        """Return in words by what the part is found."""
        x, y, width, height = self.patch
        turn = f"turned by up to {self.turn:g} degrees" if self.turn else "not turned"
        scale = f", {self.scale:.0%} larger or smaller" if self.scale else ""
        return (
            f"by a patch of {width}x{height} at {x},{y}, {turn}{scale}; found from correlation {self.confidence:.3g} "
            f"on, by {count_of(self.pictures, 'good picture')}"
        )


@dataclass(frozen=True)
class Preprocess:
    """How a frame becomes the graph's input.

    width, height: of the graph's input, in pixels. channels: 1 (mono) or 3 (colour, in BGR order).
    white_level: the value of a uint16 frame that becomes 255 (65535, or 4095 for a 12-bit camera).
    region: what a frame is cropped to; None for the whole frame. align: how the part is found before the crop, None if
    it is always in the same place; it needs a region.
    """

    width: int
    height: int
    channels: int
    white_level: int
    source: SourceLimits
    region: RegionOfInterest | None = None
    align: Alignment | None = None

    def __post_init__(self) -> None:
        if self.align is not None and self.region is None:
            raise ValueError("an alignment needs a region")

    @property
    def accepted_channels(self) -> tuple[int, ...]:
        """How many channels an image may have: colour is converted for a mono model, colour is not made up."""
        return (1, 3) if self.channels == 1 else tuple(sorted({3, *self.source.channels}))


@dataclass(frozen=True)
class Tiling:
    """How an image is cut into overlapping tiles, row by row: as many as there are tops times lefts.

    width, height: of a tile, in working pixels. lefts, tops: where the columns and the rows of tiles begin, from 0 up;
    the last ones end where the image does. Raises ValueError where they leave a gap.
    """

    width: int
    height: int
    lefts: tuple[int, ...]
    tops: tuple[int, ...]

    def __post_init__(self) -> None:
        for side, starts in ((self.width, self.lefts), (self.height, self.tops)):
            steps = [later - earlier for earlier, later in itertools.pairwise(starts)]
            if starts[:1] != (0,) or not all(0 < step <= side for step in (side, *steps)):
                raise ValueError(f"tiles of {side} pixels begin at {list(starts)}")

    @property
    def count(self) -> int:
        """How many tiles an image has."""
        return len(self.lefts) * len(self.tops)

    @property
    def image_size(self) -> tuple[int, int]:
        """Width and height of the image."""
        return self.lefts[-1] + self.width, self.tops[-1] + self.height

    def describe(self) -> str:
        """Return in words how many tiles of what size there are, and by how much neighbours overlap."""
        overlaps = [
            side - (later - earlier)
            for side, starts in ((self.width, self.lefts), (self.height, self.tops))
            for earlier, later in itertools.pairwise(starts)
        ]
        words = f"{len(self.lefts)}x{len(self.tops)} tiles of {self.width}x{self.height}"
        if not overlaps:
            return words
        low, high = min(overlaps), max(overlaps)
        return f"{words} that overlap by {low} {f'to {high} ' if high > low else ''}pixels"


@dataclass(frozen=True)
class Network:
    """The autoencoder in the graph: variant (cae, vae or aae), its layers (paper, Tables 1 to 3) and its size.

    filters, strides: of the encoder's convolutions; the decoder mirrors them.
    hidden: r of Table 3. latent: n_z of Table 3. parameters: count of weights. tiling: how the graph cuts an image
    into the tiles that the networks see; None where they see it whole. Only files of 0.1.0 set the other two.
    reduction: the autoencoder worked on squares of so many pixels each way, averaged. head: filters of a network that
    was trained on synthetic defects; empty without one. backbone: the pretrained network whose features the autoencoder
    reconstructs, each place by itself; empty where it reconstructs the pixels. Then there are no convolutions.
    """

    variant: str
    filters: tuple[int, ...]
    strides: tuple[int, ...]
    hidden: int
    latent: int
    parameters: int
    reduction: int = 1
    head: tuple[int, ...] = ()
    tiling: Tiling | None = None
    backbone: str = ""


_MAXIMA = ("peak", "relative", "expected", "head")
"""The scores of 0.1.0 that are the error map's maximum."""


@dataclass(frozen=True)
class Score:
    """How a part gets its score: name is ``mse`` (mean, Eq. 2), ``peak`` (maximum of the smoothed error map),
    ``relative`` (the same, each place divided by what good parts show there), ``expected`` (the same of the error over
    that which the decoder expects of this image), or another name of a measure of the whole image that was fitted to
    good ones (docs/networks.md). ``features``: the mean of the highest places of the reconstruction error of features,
    relative to that of good parts. In files of 0.1.0 it may be ``head``, the maximum of a trained network's map.

    smoothing: standard deviation of the Gaussian that smooths the map, in working pixels; 0 for none. why: the reason
    of the choice, in files of 0.1.0. inspected: the share of the places that a part is judged by, above 0;
    below 1 the graph holds a mask, and what an image shows elsewhere has no say in anything. maximum: whether the score
    is the maximum of the error map; files of 0.1.0 do not say so, and None takes what the name meant there.
    """

    name: str
    smoothing: float
    why: str = ""
    inspected: float = 1.0
    maximum: bool | None = None

    def __post_init__(self) -> None:
        if self.maximum is None:
            object.__setattr__(self, "maximum", self.name in _MAXIMA)

    @property
    def is_peak(self) -> bool:
        """Whether the score is the error map's maximum, so that one threshold serves both."""
        return bool(self.maximum)


@dataclass(frozen=True)
class Lesson:
    """Good pictures that were taught at one time.

    time: ISO 8601, UTC. data: the folder's name. pictures: how many. fingerprints: of each file, as
    `pack_fingerprints` packs them. vectors, map_vectors: rows of the two memories after it. whole_vectors: the same of
    the memory of whole images. stamps: thresholds in the file's history before it. looks: hashes of pictures in the
    file before it.
    """

    time: str
    data: str
    pictures: int
    fingerprints: str
    vectors: int
    map_vectors: int
    whole_vectors: int
    stamps: int
    looks: int = 0


@dataclass(frozen=True)
class Memory:
    """The memory of good parts in the graph, and the pretrained network that gives its features.

    backbone: the network's name. weights_sha256: of the file of its weights; empty if it was not checked. dimensions:
    numbers of a vector of the score's memory. by_whole: the score is the distance of the whole image, not of places.
    copies: changed copies of each picture in the memory, such as ``flips``; ``none`` without. lessons: what was
    taught, in order, one at least.
    """

    backbone: str
    weights_sha256: str
    dimensions: int
    by_whole: bool
    copies: str
    lessons: tuple[Lesson, ...]

    @property
    def pictures(self) -> int:
        """How many good pictures were taught."""
        return sum(lesson.pictures for lesson in self.lessons)


@dataclass(frozen=True)
class Threshold:
    """The cuts.

    score: a part is ``ng`` from this score on. map: a region is where the error map reaches it. review: below `score`,
    a part is ``review`` from this score on; None for no such band. area: the least region that is reported, in pixels
    of the error map; it has no say in the verdict, and the highest region of a part that is not ``ok`` is always
    reported. Raises ValueError where `review` is not below `score`, or `area` is below 0.
    """

    score: float
    map: float
    review: float | None = None
    area: int = 0

    def __post_init__(self) -> None:
        if self.review is not None and not self.review < self.score:
            raise ValueError(f"the review band begins at {self.review}, which is not below the threshold {self.score}")
        if self.area < 0:
            raise ValueError(f"the least area of a region is {self.area}; it is 0 or more pixels")


@dataclass(frozen=True)
class Rule:
    """How a threshold was chosen, as a program can do it again on other scores.

    name: the policy's. rate: a share, 0 to 1. costs: of a false reject and of an escape. prevalence: the line's share
    of defective parts, None for the images' own. value: the threshold itself, where it was set by hand.
    """

    name: str
    rate: float | None = None
    costs: tuple[float, float] | None = None
    prevalence: float | None = None
    value: float | None = None


@dataclass(frozen=True)
class HeldBack:
    """The test images that stood beside the calibration's and had no say in the threshold.

    images: how many. fingerprint: of their set. fingerprints: of every one, as `pack_fingerprints` packs them.
    """

    images: int
    fingerprint: str
    fingerprints: str


@dataclass(frozen=True)
class Calibration:
    """The evidence behind a threshold.

    policy: in words, with its number. rule: the same for a program, None where an older release wrote it.
    data: the folder's name. counts: images per kind, ``good`` among them. auroc, aupr: 0 to 1, None where only good
    images were there. true_ng, false_ng, true_ok, false_ok: the confusion matrix at the threshold; review_good,
    review_defective: the images in its review band, which are in none of the four.
    images: fingerprint of the set of images. time: ISO 8601, UTC. intervals: two-sided 95% intervals of ``fpr``,
    ``recall``, ``auroc``, ``aupr`` and ``threshold``, with a review band of ``review`` (the share of good parts in it)
    and ``escapes`` too, those of them that could be had; None for an end that so few images cannot bound.
    review_rule: how the band was chosen, None without one. map_rule: how the error map's cut was chosen, with its
    value, None where it follows the score's. area_rule: how the least area was chosen, None without one.
    fingerprints, looks: of every image, and the hashes of those that have one, as `pack_fingerprints` packs them; empty
    where an older release wrote it.
    training_images: how many of the images the model was trained on, which only happens where that was allowed.
    good_scores, defective_scores: every image's score, ascending, from which the threshold can be moved without images.
    mark_scores: scores of up to 100 of the good images with each of four test marks drawn on, one row an image.
    recalibrated: over how many good frames of the line the threshold was carried from an earlier calibration, else 0.
    held_back: the test images of the same dataset, None where it had none or an older release wrote it.
    """

    policy: str
    data: str
    counts: dict[str, int]
    auroc: float | None
    aupr: float | None
    true_ng: int
    false_ng: int
    true_ok: int
    false_ok: int
    images: str
    time: str
    intervals: dict[str, tuple[float | None, ...]] = field(default_factory=dict)
    training_images: int = 0
    good_scores: tuple[float, ...] = ()
    defective_scores: tuple[float, ...] = ()
    rule: Rule | None = None
    review_good: int = 0
    review_defective: int = 0
    review_rule: Rule | None = None
    map_rule: Rule | None = None
    area_rule: Rule | None = None
    fingerprints: str = ""
    looks: str = ""
    mark_scores: tuple[tuple[float, ...], ...] = ()
    recalibrated: int = 0
    held_back: HeldBack | None = None


@dataclass(frozen=True)
class Appearance:
    """Lowest and highest brightness and sharpness of the training images (`appearance.measure`)."""

    brightness: tuple[float, float]
    sharpness: tuple[float, float]


@dataclass(frozen=True)
class Looks:
    """What the training images look like, by which almost the same images are known again (`looks`).

    medians: of each of the 64 frequencies. hashes: of the images, 16 hexadecimal digits each, without those of images
    that have no structure.
    """

    medians: tuple[float, ...]
    hashes: tuple[str, ...]


@dataclass(frozen=True)
class Stamp:
    """An earlier threshold with its evidence."""

    threshold: Threshold
    calibration: Calibration | None


@dataclass(frozen=True)
class Agreement:
    """How a file's verdicts agree with those of what it was made from, on the same labelled images.

    reference: what it was made from, a file as its name and checksum's first digits. policy: in words, by which both
    thresholds were chosen, each from its own scores. images: compared. flips: verdicts that differ. carried: those that
    would differ had the reference's threshold been kept. shift: root mean square difference of the scores, as a share
    of the standard deviation of the reference's.
    """

    reference: str
    policy: str
    images: int
    flips: int
    carried: int
    shift: float


@dataclass(frozen=True)
class Provenance:
    """Where the model comes from.

    versions: of the packages that made it. training_images: how many. training_fingerprint: of their set.
    trained, exported: ISO 8601, UTC. parity: largest relative difference seen between the float32 file's scores and the
    trained model's. parity_images: the images compared. precision: ``fp32``, ``fp16`` or ``int8``. reduced_layers,
    float_layers: which layers have that precision, and which stayed in float32 because the scores need them; empty for
    fp32. agreement: of decisions, None where the export was given no labelled images.
    """

    versions: dict[str, str]
    seed: int
    data: str
    training_images: int
    training_fingerprint: str
    trained: str
    exported: str
    parity: float
    parity_images: int
    precision: str = "fp32"
    reduced_layers: tuple[str, ...] = ()
    float_layers: tuple[str, ...] = ()
    agreement: Agreement | None = None


@dataclass(frozen=True, repr=False)
class ModelInfo:
    """All that a model file says about itself; it prints as ten lines.

    graph_sha256 is of the file's bytes other than its metadata. history: the thresholds before this one, oldest first.
    appearance: of the training images, None where an older release exported the file. network: None if the file has no
    autoencoder. memory: None if the score is not that of a memory of good parts.
    """

    name: str
    preprocess: Preprocess
    network: Network | None
    score: Score
    provenance: Provenance
    threshold: Threshold | None = None
    calibration: Calibration | None = None
    history: tuple[Stamp, ...] = ()
    graph_sha256: str = ""
    looks_digest: str = ""
    appearance: Appearance | None = None
    memory: Memory | None = None
    format_version: int = 1

    def __repr__(self) -> str:
        from onspect.runtime.model.card import summarize  # it imports this module

        return summarize(self)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object that stands in the file."""
        return dataclasses.asdict(self)
