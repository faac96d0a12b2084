"""The fields of a model file's metadata. docs/model-file.md defines them."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass, field
from typing import Any

from onspect.runtime.text import count_of

FORMAT_VERSION = 5
"""The newest format version that this release reads. It writes the oldest one that gives the same verdicts."""


@dataclass(frozen=True)
class SourceLimits:
    """The frames that are accepted before resizing: those that training had seen, so another camera mode is noticed."""

    channels: tuple[int, ...]
    """Accepted channel counts, of 1 (mono) and 3 (colour)."""

    width: tuple[int, int] | None
    """Lowest and highest accepted width in pixels; None accepts any."""

    height: tuple[int, int] | None
    """Lowest and highest accepted height in pixels; None accepts any."""


Polygon = tuple[tuple[int, int], ...]
"""Corners (x, y) in pixels, at least three."""

Rectangle = tuple[int, int, int, int]
"""x and y of the top left pixel, width and height, in pixels."""


@dataclass(frozen=True)
class RegionOfInterest:
    """The part of a frame that is inspected.

    Coordinates are pixels of the frame. With an alignment they are pixels of the reference's frame.

    Raises
    ------
    ValueError
        If the box is empty or leaves the frame, or if a polygon has fewer than three corners.
    """

    box: Rectangle
    """The rectangle that a frame is cropped to."""

    frame: tuple[int, int]
    """Width and height of the frame that the region was drawn on, in pixels."""

    rectangles: tuple[Rectangle, ...] = ()
    """Places that are inspected. Without rectangles and polygons the whole box is inspected."""

    polygons: tuple[Polygon, ...] = ()
    """Places that are inspected."""

    ignored_rectangles: tuple[Rectangle, ...] = ()
    """Places that are not inspected."""

    ignored_polygons: tuple[Polygon, ...] = ()
    """Places that are not inspected."""

    def __post_init__(self) -> None:
        (x, y, width, height), (across, down) = self.box, self.frame
        if min(x, y) < 0 or min(width, height) < 1 or x + width > across or y + height > down:
            raise ValueError(f"the region {width}x{height} at {x},{y} does not fit into {across}x{down} pixels")
        if any(len(polygon) < 3 for polygon in (*self.polygons, *self.ignored_polygons)):
            raise ValueError("a polygon has fewer than three corners")

    def describe(self) -> str:
        """Return the region as text.

        Returns
        -------
        str
            Text such as ``320x320 at 160,80 of 640x480 pixels, 1 ignored area``.
        """
        x, y, width, height = self.box
        ignored = len(self.ignored_rectangles) + len(self.ignored_polygons)
        shapes = ((len(self.rectangles), "rectangle"), (len(self.polygons), "polygon"), (ignored, "ignored area"))
        words = f"{width}x{height} at {x},{y} of {self.frame[0]}x{self.frame[1]} pixels"
        return words + "".join(f", {count_of(count, noun)}" for count, noun in shapes if count)


@dataclass(frozen=True)
class Alignment:
    """How the part is found in a frame, before the crop.

    Raises
    ------
    ValueError
        If a value is outside its range.
    """

    patch: Rectangle
    """Place of the reference in the frame that it was taken from, in pixels."""

    reference: str = field(repr=False)
    """The patch, downsampled, as base64 text of a mono 8-bit PNG."""

    turn: float
    """Largest rotation either way, 0 to 180 degrees."""

    scale: float
    """Largest change of size either way, as a share from 0 to 0.2."""

    confidence: float
    """Lowest correlation at which the part counts as found, between 0 and 1."""

    pictures: int
    """Number of good pictures that the alignment was chosen on."""

    def __post_init__(self) -> None:
        if not (0.0 <= self.turn <= 180.0 and 0.0 <= self.scale <= 0.2 and 0.0 < self.confidence < 1.0):
            raise ValueError(f"turn {self.turn}, scale {self.scale} or confidence {self.confidence} is out of range")

    def describe(self) -> str:
        """Describe how the part is found.

        Returns
        -------
        str
            Place of the patch, rotation, size and correlation.
        """
        x, y, width, height = self.patch
        turn = f"turned by up to {self.turn:g} degrees" if self.turn else "not turned"
        scale = f", {self.scale:.0%} larger or smaller" if self.scale else ""
        return (
            f"by a patch of {width}x{height} at {x},{y}, {turn}{scale}; found from correlation {self.confidence:.3g} "
            f"on, by {count_of(self.pictures, 'good picture')}"
        )


@dataclass(frozen=True)
class Preprocess:
    """How a frame becomes the input of the graph.

    Raises
    ------
    ValueError
        If there is an alignment without a region, or a region with `keep_aspect`.
    """

    width: int
    """Width of the graph's input in pixels; the usual one with `keep_aspect`."""

    height: int
    """Height of the graph's input in pixels; the usual one with `keep_aspect`."""

    channels: int
    """1 (mono) or 3 (colour, in BGR order)."""

    white_level: int
    """Value of a uint16 frame that becomes 255: 65535, or 4095 for a 12-bit camera."""

    source: SourceLimits
    """The accepted frames."""

    region: RegionOfInterest | None = None
    """Region that a frame is cropped to; None for the whole frame."""

    align: Alignment | None = None
    """How the part is found before the crop; None if its place is fixed. It needs a region."""

    keep_aspect: bool = False
    """Whether frames of different shapes are judged at different sizes. Each keeps its aspect ratio, and is resized to
    about `width` times `height` pixels, to sides that are multiples of 32."""

    def __post_init__(self) -> None:
        if self.keep_aspect and self.region is not None:
            raise ValueError("a region has one size, so keep_aspect is for whole frames")
        if self.align is not None and self.region is None:
            raise ValueError("an alignment needs a region")

    @property
    def accepted_channels(self) -> tuple[int, ...]:
        """Accepted channel counts of an image. A mono model converts colour; a colour model needs colour."""
        return (1, 3) if self.channels == 1 else tuple(sorted({3, *self.source.channels}))


@dataclass(frozen=True)
class Tiling:
    """How an image is cut into overlapping tiles, row by row.

    Raises
    ------
    ValueError
        If the tiles leave a gap.
    """

    width: int
    """Width of a tile in working pixels."""

    height: int
    """Height of a tile in working pixels."""

    lefts: tuple[int, ...]
    """Left edges of the columns of tiles, ascending from 0. The last column ends at the image's edge."""

    tops: tuple[int, ...]
    """Top edges of the rows of tiles, ascending from 0. The last row ends at the image's edge."""

    def __post_init__(self) -> None:
        for side, starts in ((self.width, self.lefts), (self.height, self.tops)):
            steps = [later - earlier for earlier, later in itertools.pairwise(starts)]
            if starts[:1] != (0,) or not all(0 < step <= side for step in (side, *steps)):
                raise ValueError(f"tiles of {side} pixels begin at {list(starts)}")

    @property
    def count(self) -> int:
        """Number of tiles of an image."""
        return len(self.lefts) * len(self.tops)

    @property
    def image_size(self) -> tuple[int, int]:
        """Width and height of the image in working pixels."""
        return self.lefts[-1] + self.width, self.tops[-1] + self.height

    def describe(self) -> str:
        """Return number, size and overlap of the tiles as text.

        Returns
        -------
        str
            Text such as ``2x2 tiles of 256x256 that overlap by 32 pixels``.
        """
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
    """The autoencoder in the graph."""

    variant: str
    """``cae``, ``vae`` or ``aae``."""

    filters: tuple[int, ...]
    """Filters of each convolution of the encoder (paper, Tables 1 and 2). The decoder mirrors them."""

    strides: tuple[int, ...]
    """Stride of each convolution of the encoder."""

    hidden: int
    """Size of the hidden layer, r in the paper's Table 3."""

    latent: int
    """Length of the latent vector, n_z in the paper's Table 3."""

    parameters: int
    """Number of weights."""

    reduction: int = 1
    """Side of the squares of pixels that are averaged before the autoencoder; only files of 0.1.0 set it."""

    head: tuple[int, ...] = ()
    """Filters of a network that was trained on synthetic defects, empty without one. Only files of 0.1.0 set it."""

    tiling: Tiling | None = None
    """How the graph cuts an image into tiles; None if the network takes the whole image."""

    backbone: str = ""
    """Pretrained network whose features the autoencoder reconstructs, place by place and without convolutions. Empty
    if it reconstructs the pixels."""


_MAXIMA = ("peak", "relative", "expected", "head")
"""Scores of 0.1.0 that are the maximum of the error map."""


@dataclass(frozen=True)
class Score:
    """How a part gets its score."""

    name: str
    """One of these names, or that of a fitted measure of the whole image (docs/scores.md). ``mse``: mean squared
    error, Eq. 2. ``peak``: maximum of the smoothed error map. ``relative``: the same, divided at each place by the
    error of good parts. ``expected``: the same, divided by the error that the decoder expects of this image.
    ``features``: mean of the highest reconstruction errors of features, relative to good parts. ``head``: maximum
    of a trained network's map, only in files of 0.1.0."""

    smoothing: float
    """Standard deviation of the Gaussian that smooths the map, in working pixels; 0 for none."""

    why: str = ""
    """Reason of the choice, in files of 0.1.0."""

    inspected: float = 1.0
    """Share of the places that is inspected, above 0 and up to 1. Below 1 the graph has a mask, and the image is
    ignored elsewhere."""

    maximum: bool | None = None
    """Whether the score is the maximum of the error map. Files of 0.1.0 do not have it; None derives it from the name.
    """

    def __post_init__(self) -> None:
        if self.maximum is None:
            object.__setattr__(self, "maximum", self.name in _MAXIMA)

    @property
    def is_peak(self) -> bool:
        """Whether the score is the maximum of the error map, so that one threshold serves both."""
        return bool(self.maximum)


@dataclass(frozen=True)
class Lesson:
    """Good pictures that were taught at one time."""

    time: str
    """ISO 8601, UTC."""

    data: str
    """Name of the folder."""

    pictures: int
    """Number of pictures."""

    fingerprints: str
    """Fingerprint of each file, as `pack_fingerprints` packs them."""

    vectors: int
    """Vectors in the score's memory after the lesson."""

    map_vectors: int
    """Vectors in the error map's memory after the lesson."""

    whole_vectors: int
    """Vectors in the memory of whole images after the lesson."""

    stamps: int
    """Number of thresholds in the history before the lesson."""

    looks: int = 0
    """Number of image hashes in the file before the lesson."""


@dataclass(frozen=True)
class Memory:
    """The memory of good parts in the graph, and the pretrained network of its features."""

    backbone: str
    """Name of the pretrained network."""

    weights_sha256: str
    """SHA-256 of its file of weights; empty if it was not checked."""

    dimensions: int
    """Length of a vector in the score's memory."""

    by_whole: bool
    """Whether the score is the distance of the whole image instead of its places."""

    copies: str
    """Changed copies of each picture in the memory, such as ``flips``; ``none`` without copies."""

    lessons: tuple[Lesson, ...]
    """All lessons in their order, at least one."""

    @property
    def pictures(self) -> int:
        """Number of good pictures that were taught."""
        return sum(lesson.pictures for lesson in self.lessons)


@dataclass(frozen=True)
class Threshold:
    """The cuts of score and error map.

    Raises
    ------
    ValueError
        If `review` is not below `score`, or `area` is below 0.
    """

    score: float
    """A part is ``ng`` from this score on."""

    map: float
    """A region consists of the places where the error map reaches this value."""

    review: float | None = None
    """Below `score`, a part is ``review`` from this score on; None without a review band."""

    area: int = 0
    """Smallest region that is reported, in pixels of the error map. It does not affect the verdict. The highest region
    of a part that is not ``ok`` is always reported."""

    def __post_init__(self) -> None:
        if self.review is not None and not self.review < self.score:
            raise ValueError(f"the review band begins at {self.review}, which is not below the threshold {self.score}")
        if self.area < 0:
            raise ValueError(f"the least area of a region is {self.area}; it is 0 or more pixels")


@dataclass(frozen=True)
class Rule:
    """How a threshold was chosen, so that a program can repeat the choice on other scores."""

    name: str
    """Name of the policy."""

    rate: float | None = None
    """A share, 0 to 1; None if the policy has none."""

    costs: tuple[float, float] | None = None
    """Costs of a false reject and of an escape; None if the policy has none."""

    prevalence: float | None = None
    """Share of defective parts on the line, 0 to 1; None for the share among the images."""

    value: float | None = None
    """The threshold itself if it was set by hand, otherwise None."""


@dataclass(frozen=True)
class HeldBack:
    """The test images of the calibration's dataset. They were not used for the threshold."""

    images: int
    """Number of images."""

    fingerprint: str
    """Fingerprint of the set."""

    fingerprints: str
    """Fingerprint of each image, as `pack_fingerprints` packs them."""


@dataclass(frozen=True)
class Calibration:
    """The evidence behind a threshold."""

    policy: str
    """The policy as text, with its number."""

    data: str
    """Name of the folder."""

    counts: dict[str, int]
    """Number of images of each kind. ``good`` is one of them."""

    auroc: float | None
    """Area under the ROC curve, 0 to 1; None without defective images."""

    aupr: float | None
    """Area under the precision-recall curve, 0 to 1; None without defective images."""

    true_ng: int
    """Defective images at or above the threshold."""

    false_ng: int
    """Good images at or above the threshold."""

    true_ok: int
    """Good images below the threshold and its review band."""

    false_ok: int
    """Defective images below the threshold and its review band."""

    images: str
    """Fingerprint of the set of images."""

    time: str
    """ISO 8601, UTC."""

    intervals: dict[str, tuple[float | None, ...]] = field(default_factory=dict)
    """Two-sided 95% intervals, low and high end, of ``fpr``, ``recall``, ``auroc``, ``aupr`` and ``threshold``, as far
    as they are available. With a review band also of ``review`` (its share of good parts) and ``escapes``. An end
    is None if the images are too few to bound it."""

    training_images: int = 0
    """Number of images that the model was trained on. It is above 0 only where that was allowed."""

    good_scores: tuple[float, ...] = ()
    """Scores of all good images, ascending, so that the threshold can be moved without images."""

    defective_scores: tuple[float, ...] = ()
    """Scores of all defective images, ascending."""

    rule: Rule | None = None
    """The policy for a program; None in files of older releases."""

    review_good: int = 0
    """Good images in the review band."""

    review_defective: int = 0
    """Defective images in the review band."""

    review_rule: Rule | None = None
    """How the review band was chosen, None without one."""

    map_rule: Rule | None = None
    """How the cut of the error map was chosen, with its value; None if it follows the score's."""

    area_rule: Rule | None = None
    """How the smallest area was chosen, None without one."""

    fingerprints: str = ""
    """Fingerprint of each image, as `pack_fingerprints` packs them; empty in files of older releases."""

    looks: str = ""
    """Hashes of the images that have one, packed in the same way; empty in files of older releases."""

    mark_scores: tuple[tuple[float, ...], ...] = ()
    """Scores of up to 100 good images with each of the four probe defects drawn on. One row for each image."""

    recalibrated: int = 0
    """Number of good frames that an earlier threshold was transferred with; 0 without a transfer."""

    held_back: HeldBack | None = None
    """Test images of the same dataset; None without any, and in files of older releases."""


@dataclass(frozen=True)
class Appearance:
    """The range of brightness and sharpness of the training images (`appearance.measure`)."""

    brightness: tuple[float, float]
    """Lowest and highest brightness."""

    sharpness: tuple[float, float]
    """Lowest and highest sharpness."""


@dataclass(frozen=True)
class Looks:
    """Hashes of the training images, by which near duplicates are found (`near_duplicates`)."""

    medians: tuple[float, ...]
    """Median of each of the 64 frequencies."""

    hashes: tuple[str, ...]
    """Hash of each image, 16 hexadecimal digits. Images without structure have none."""


@dataclass(frozen=True)
class Stamp:
    """An earlier threshold with its evidence."""

    threshold: Threshold
    """The threshold."""

    calibration: Calibration | None
    """Its evidence, None if it was set without images."""


@dataclass(frozen=True)
class Agreement:
    """How the verdicts of a file agree with those of its reference, on the same labelled images."""

    reference: str
    """What the file was made from. A file is given by its name and the first digits of its checksum."""

    policy: str
    """The policy as text. Each of the two thresholds was chosen by it, from its own scores."""

    images: int
    """Number of images compared."""

    flips: int
    """Number of verdicts that differ."""

    carried: int
    """Number of verdicts that differ if the reference's threshold is kept."""

    shift: float
    """Root mean square difference of the scores, as a share of the standard deviation of the reference's."""


@dataclass(frozen=True)
class Bfloat16Margin:
    """How far bfloat16 moves the scores of a file. The provider ``openvino-bf16`` needs it.

    A difference is the score in bfloat16 minus the score in float32.

    Raises
    ------
    ValueError
        If 0 is not between `low` and `high`.
    """

    low: float
    """Lowest difference within the margin, 0 or less."""

    high: float
    """Highest difference within the margin, 0 or more."""

    share: float
    """Share of new pictures whose difference is within the margin, 0 to 1."""

    pictures: int
    """Number of pictures that the differences were measured on."""

    data: str
    """Name of their folder."""

    time: str
    """ISO 8601, UTC."""

    openvino: str
    """Version of OpenVINO."""

    graph_sha256: str
    """Checksum of the graph. The margin is not valid for another graph."""

    def __post_init__(self) -> None:
        if not self.low <= 0.0 <= self.high:
            raise ValueError(f"the margin of bfloat16 is {self.low} to {self.high}, and 0 is not between them")


@dataclass(frozen=True)
class Provenance:
    """Where the model comes from."""

    versions: dict[str, str]
    """Version of each package that made it."""

    seed: int
    """Seed of the training."""

    data: str
    """Name of the dataset."""

    training_images: int
    """Number of training images."""

    training_fingerprint: str
    """Fingerprint of their set."""

    trained: str
    """ISO 8601, UTC."""

    exported: str
    """ISO 8601, UTC."""

    parity: float
    """Largest relative difference between the scores of the float32 file and of the trained model."""

    parity_images: int
    """Number of images compared for it."""

    precision: str = "fp32"
    """``fp32``, ``fp16`` or ``int8``."""

    reduced_layers: tuple[str, ...] = ()
    """Layers with that precision; empty for ``fp32``."""

    float_layers: tuple[str, ...] = ()
    """Layers that stayed in float32 because the scores need them; empty for ``fp32``."""

    agreement: Agreement | None = None
    """Agreement of the verdicts; None if the export had no labelled images."""


@dataclass(frozen=True, repr=False)
class ModelInfo:
    """All metadata of a model file. It prints as ten lines."""

    name: str
    """Name of the model."""

    preprocess: Preprocess
    """How a frame becomes the graph's input."""

    network: Network | None
    """The autoencoder, None if the file has none."""

    score: Score
    """How a part gets its score."""

    provenance: Provenance
    """Where the model comes from."""

    threshold: Threshold | None = None
    """The cuts, None before the first calibration."""

    calibration: Calibration | None = None
    """The evidence behind the threshold, None without any."""

    history: tuple[Stamp, ...] = ()
    """Earlier thresholds, oldest first."""

    graph_sha256: str = ""
    """SHA-256 of the file's bytes without its metadata."""

    looks_digest: str = ""
    """Checksum of the image hashes, empty without hashes."""

    appearance: Appearance | None = None
    """Appearance of the training images; None in files of older releases."""

    memory: Memory | None = None
    """The memory of good parts; None if the score is not from one."""

    format_version: int = 1
    """Format version of the file, 1 to `FORMAT_VERSION`."""

    bfloat16: Bfloat16Margin | None = None
    """How far bfloat16 moves the scores, None if it was not measured."""

    def __repr__(self) -> str:
        from onspect.runtime.model.card import summarize  # it imports this module

        return summarize(self)

    @property
    def valid_margin(self) -> Bfloat16Margin | None:
        """The margin of bfloat16, None if it was not measured, or was measured on another graph."""
        margin = self.bfloat16
        return margin if margin is not None and margin.graph_sha256 == self.graph_sha256 else None

    def to_dict(self) -> dict[str, Any]:
        """Return the metadata as the JSON object in the file.

        Returns
        -------
        dict[str, Any]
            Every field under its name.
        """
        return dataclasses.asdict(self)
