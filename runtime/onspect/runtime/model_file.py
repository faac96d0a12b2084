"""The model file: what its metadata says, reading it and stamping it anew, without the onnx package.

An onspect model file is an ONNX file whose ``metadata_props`` hold ``onspect`` (JSON, `ModelInfo`),
``onspect.training_images`` (fingerprints of the training images) and ``onspect.checksum`` over both. ``onspect.looks``
holds their perceptual hashes.
docs/model-file.md is the format's definition. An ONNX file is one protocol-buffer message; only its outermost fields
are walked here, so that a new stamp leaves every other byte as it was.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import itertools
import json
import math
import struct
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from onspect.runtime.errors import ModelFileError
from onspect.runtime.files import describe_os_error, sweep_abandoned, write_atomically
from onspect.runtime.protobuf import encode_bytes, walk

FORMAT_VERSION = 3
"""The newest format version that this release reads. It writes the oldest that judges alike: see `_needed_version`."""

_METADATA_KEY = "onspect"
_TRAINING_IMAGES_KEY = "onspect.training_images"
_LOOKS_KEY = "onspect.looks"
_CHECKSUM_KEY = "onspect.checksum"
_METADATA_PROPS = 14  # the field's number in ModelProto, onnx.proto
_MAX_TRAINING_IMAGES = 10_000


@dataclass(frozen=True)
class SourceLimits:
    """What a frame must be like before it is resized: what training saw, so that another camera mode is noticed.

    channels: the channel counts accepted, of 1 (mono) and 3 (colour).
    width, height: lowest and highest accepted, in pixels; None accepts any.
    """

    channels: tuple[int, ...]
    width: tuple[int, int] | None
    height: tuple[int, int] | None


@dataclass(frozen=True)
class Preprocess:
    """How a frame becomes the graph's input.

    width, height: of the graph's input, in pixels. channels: 1 (mono) or 3 (colour, in BGR order).
    white_level: the value of a uint16 frame that becomes 255 (65535, or 4095 for a 12-bit camera).
    """

    width: int
    height: int
    channels: int
    white_level: int
    source: SourceLimits

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


@dataclass(frozen=True)
class Score:
    """How a part gets its score: name is ``mse`` (mean, Eq. 2), ``peak`` (maximum of the smoothed error map),
    ``relative`` (the same, each place divided by what good parts show there), ``expected`` (the same of the error over
    that which the decoder expects of this image), or another name of a measure of the whole image that was fitted to
    good ones (docs/networks.md). ``features``: the mean of the highest places of the reconstruction error of features,
    relative to that of good parts. In files of 0.1.0 it may be ``head``, the maximum of a trained network's map.

    smoothing: standard deviation of the Gaussian that smooths the map, in working pixels; 0 for none. why: the reason
    of the choice, in files of 0.1.0. inspected: the share of the places that a part is judged by, above 0;
    below 1 the graph holds a mask, and what an image shows elsewhere has no say in anything.
    """

    name: str
    smoothing: float
    why: str = ""
    inspected: float = 1.0

    @property
    def is_peak(self) -> bool:
        """Whether the score is the error map's maximum, so that one threshold serves both."""
        return self.name in ("peak", "relative", "expected", "head")


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
            raise ValueError(f"the review band begins at {self.review}, which is not below the cut at {self.score}")
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


@dataclass(frozen=True)
class ModelInfo:
    """All that a model file says about itself.

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

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object that stands in the file."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class ModelFile:
    """A model file's bytes, read once and checked, with what they say. sha256 is of the whole file."""

    path: Path
    data: bytes = field(repr=False)
    info: ModelInfo
    training_images: frozenset[str] = field(repr=False)
    sha256: str
    looks: Looks | None = field(default=None, repr=False)


def read_model_file(path: Path | str) -> ModelFile:
    """Read and check a model file.

    Raises ModelFileError where it is missing, truncated, damaged, another program's, or of a newer format version.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"cannot read the model file {str(path)!r}: {describe_os_error(error)}") from error
    return parse_model_file(path, data)


def parse_model_file(path: Path, data: bytes) -> ModelFile:
    """Check a model file's bytes; path is what messages call it. Raises ModelFileError as `read_model_file` does."""
    rest, metadata = _split(path, data)
    if _METADATA_KEY not in metadata:
        raise ModelFileError(
            f"{str(path)!r} is not a model file that onspect made (it has no 'onspect' metadata); "
            "make one with 'onspect export'"
        )
    info = _parse_info(path, metadata[_METADATA_KEY])
    graph_sha256, file_sha256 = _hash_both(rest, data)
    graph_matches = info.graph_sha256 == graph_sha256
    if not graph_matches or metadata.get(_CHECKSUM_KEY) != _checksum(metadata):
        what = "metadata do" if graph_matches else "graph does"
        raise ModelFileError(
            f"{str(path)!r} is damaged or truncated: its {what} not match its own checksum; copy it again"
        )
    looks = metadata.get(_LOOKS_KEY, "")
    if _digest(looks) != info.looks_digest:
        raise ModelFileError(f"{str(path)!r} is damaged: its images' hashes do not match their checksum; copy it again")
    training_images = frozenset(unpack_fingerprints(metadata.get(_TRAINING_IMAGES_KEY, "")))
    return ModelFile(path, data, info, training_images, file_sha256, _unpack_looks(looks))


def pack_fingerprints(fingerprints: Iterable[str]) -> str:
    """Return fingerprints or hashes, 16 hexadecimal digits each, as base64."""
    return base64.b64encode(bytes.fromhex("".join(fingerprints))).decode()


def unpack_fingerprints(text: str) -> list[str]:
    """Return what `pack_fingerprints` packed; raises ValueError where it is damaged."""
    packed = base64.b64decode(text)
    return [packed[place : place + 8].hex() for place in range(0, len(packed), 8)]


_MEDIANS = struct.Struct("<64f")


def _pack_looks(looks: Looks) -> str:
    return base64.b64encode(_MEDIANS.pack(*looks.medians)).decode() + " " + pack_fingerprints(looks.hashes)


def _unpack_looks(text: str) -> Looks | None:
    if not text:
        return None
    medians, _, hashes = text.partition(" ")
    return Looks(_MEDIANS.unpack(base64.b64decode(medians)), tuple(unpack_fingerprints(hashes)))


def _digest(looks: str) -> str:
    return hashlib.blake2b(looks.encode(), digest_size=16).hexdigest() if looks else ""


def read_model_info(path: Path | str) -> ModelInfo:
    """Read what a model file says about itself; raises ModelFileError as `read_model_file` does."""
    return read_model_file(path).info


def stamp(data: bytes, info: ModelInfo, training_images: Iterable[str], looks: Looks | None = None) -> bytes:
    """Return an ONNX file's bytes with new onspect metadata; all bytes outside the metadata stay as they are.

    training_images are fingerprints (`fingerprint_bytes`). At most 10,000 are kept, the smallest ones: enough to
    notice that a folder was trained on. looks are the training images'; None keeps what the file holds.
    """
    rest, metadata = _split(Path(info.name), data)
    kept = sorted(training_images)[:_MAX_TRAINING_IMAGES]
    version = _needed_version(info)
    if looks is not None:
        metadata[_LOOKS_KEY] = _pack_looks(looks)
    info = dataclasses.replace(
        info,
        graph_sha256=hashlib.sha256(rest).hexdigest(),
        looks_digest=_digest(metadata.get(_LOOKS_KEY, "")),
        format_version=version,
    )
    # vars, not to_dict: that copies each of thousands of scores, and doubles the time that a stamp takes
    metadata[_METADATA_KEY] = json.dumps(info, default=vars, ensure_ascii=False, allow_nan=False)
    metadata[_TRAINING_IMAGES_KEY] = pack_fingerprints(kept)
    metadata.pop(_CHECKSUM_KEY, None)
    metadata[_CHECKSUM_KEY] = _checksum(metadata)  # last, so that a file cut between two entries is known by it
    return b"".join((rest, *(_encode_entry(key, value) for key, value in metadata.items())))


def _needed_version(info: ModelInfo) -> int:
    """Return the oldest format version whose readers give this file's verdicts and regions.

    A reader of version 1 knows no review band and would pass its parts as ``ok``, so it must refuse such a file. Up to
    version 2 every file has an autoencoder of images.
    """
    if info.memory is not None or info.network is None or info.network.backbone:
        return 3
    threshold = info.threshold
    return 1 if threshold is None or (threshold.review is None and threshold.area == 0) else 2


def _checksum(metadata: dict[str, str]) -> str:
    text = f"{metadata[_METADATA_KEY]}\n{metadata.get(_TRAINING_IMAGES_KEY, '')}"
    return hashlib.sha256(text.encode()).hexdigest()


def restamp(model: ModelFile, threshold: Threshold, calibration: Calibration) -> ModelInfo:
    """Write a new threshold and its evidence into a model file, atomically; returns what the file now says.

    The threshold that was there goes to the end of the history.
    """
    old = model.info
    history = old.history if old.threshold is None else (*old.history, Stamp(old.threshold, old.calibration))
    return _write_info(model, dataclasses.replace(old, threshold=threshold, calibration=calibration, history=history))


def undo_restamp(model: ModelFile) -> ModelInfo:
    """Go back to the threshold before this one; returns what the file now says. Raises ModelFileError without one."""
    if not model.info.history:
        raise ModelFileError(f"{str(model.path)!r} holds no earlier threshold to go back to")
    last = model.info.history[-1]
    return _write_info(
        model,
        dataclasses.replace(
            model.info, threshold=last.threshold, calibration=last.calibration, history=model.info.history[:-1]
        ),
    )


def _write_info(model: ModelFile, info: ModelInfo) -> ModelInfo:
    write_atomically(model.path, stamp(model.data, info, model.training_images))
    sweep_abandoned(model.path)
    return info


def _hash_both(rest: bytes | memoryview, data: bytes) -> tuple[str, str]:
    """Return the SHA-256 of the graph and of the whole file, in one go where the file begins with the graph."""
    graph = hashlib.sha256(rest)
    if not isinstance(rest, memoryview):
        return graph.hexdigest(), hashlib.sha256(data).hexdigest()
    whole = graph.copy()
    whole.update(memoryview(data)[len(rest) :])
    return graph.hexdigest(), whole.hexdigest()


def _split(path: Path, data: bytes) -> tuple[bytes | memoryview, dict[str, str]]:
    """Part a file into all its bytes but the metadata, and the metadata.

    Where the metadata stand at the end, as `stamp` leaves them, the other bytes are a view of the beginning of data.
    """
    rest: list[memoryview] = []
    view = memoryview(data)
    end_of_rest = 0
    metadata: dict[str, str] = {}
    try:
        for number, start, payload, end in walk(data):
            if number == _METADATA_PROPS:
                entry = {n: data[payload + p : payload + e] for n, _, p, e in walk(data[payload:end])}
                metadata[entry[1].decode()] = entry.get(2, b"").decode()
            else:
                rest.append(view[start:end])
                end_of_rest = end
    except (ValueError, KeyError) as error:
        raise ModelFileError(
            f"{str(path)!r} is truncated or not an ONNX file ({len(data)} bytes); copy or export it again"
        ) from error
    if sum(map(len, rest)) == end_of_rest:
        return view[:end_of_rest], metadata
    return b"".join(rest), metadata


def _encode_entry(key: str, value: str) -> bytes:
    return encode_bytes(_METADATA_PROPS, encode_bytes(1, key.encode()) + encode_bytes(2, value.encode()))


def _parse_info(path: Path, text: str) -> ModelInfo:
    try:
        content = json.loads(text)
        version = content["format_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelFileError(f"{str(path)!r} has damaged metadata ({error}); export it again") from error
    if not isinstance(version, int) or not 1 <= version <= FORMAT_VERSION:
        raise ModelFileError(
            f"{str(path)!r} has format version {version}, and this onspect reads up to {FORMAT_VERSION}: "
            "upgrade onspect on this machine"
        )
    try:
        return parse_dataclass(ModelInfo, content)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFileError(f"{str(path)!r} has damaged metadata ({error}); export it again") from error


T = TypeVar("T")


def parse_dataclass(kind: type[T], content: Any) -> T:
    """Build a frozen dataclass from its JSON object; keys it does not know are left out, missing ones take defaults.

    Raises TypeError or ValueError, naming the field, where a value does not fit.
    """
    if not isinstance(content, dict):
        raise TypeError(f"{kind.__name__} is {content!r}, not an object")
    hints = typing.get_type_hints(kind)
    known = {f.name for f in dataclasses.fields(kind)}  # type: ignore[arg-type]  # only dataclasses come here
    return kind(**{name: _parse(hints[name], value, name) for name, value in content.items() if name in known})


def _all_finite(values: list[Any]) -> bool:
    """Tell whether all are finite floats, as almost always: then there is nothing to look at one by one."""
    return all(type(value) is float for value in values) and all(map(math.isfinite, values))


def _parse(kind: Any, value: Any, name: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        return None if value is None else _parse(arguments[0], value, name)
    if dataclasses.is_dataclass(kind):
        return parse_dataclass(typing.cast("type[Any]", kind), value)
    fixed = Ellipsis not in arguments
    if arguments == (float, Ellipsis) and isinstance(value, list) and _all_finite(value):
        return tuple(value)
    if origin is tuple and isinstance(value, list) and not (fixed and len(value) != len(arguments)):
        return tuple(_parse(arguments[0], item, name) for item in value)
    if origin is dict and isinstance(value, dict):
        return {key: _parse(arguments[1], item, name) for key, item in value.items()}
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    if kind in (int, str, bool) and type(value) is kind:
        return value
    raise TypeError(f"{name} is {value!r}")
