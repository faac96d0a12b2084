"""Read a model file and stamp it, without the onnx package.

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
import json
import shlex
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from onspect.runtime.atomic import describe_os_error, sweep_abandoned, write_atomically
from onspect.runtime.errors import ModelFileError
from onspect.runtime.fingerprints import pack_fingerprints, unpack_fingerprints
from onspect.runtime.model.protobuf import encode_bytes, walk
from onspect.runtime.model.schema import FORMAT_VERSION, Calibration, Looks, ModelInfo, Stamp, Threshold
from onspect.runtime.records import parse_dataclass

BASE_KEY = "onspect.base"
"""Key of the metadata of a base file (`teaching.base_file`), which is no model file yet."""

_METADATA_KEY = "onspect"
_TRAINING_IMAGES_KEY = "onspect.training_images"
_LOOKS_KEY = "onspect.looks"
_CHECKSUM_KEY = "onspect.checksum"
_METADATA_PROPS = 14  # the field's number in ModelProto, onnx.proto
_MAX_TRAINING_IMAGES = 10_000


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

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    ModelFile
        Its metadata, graph and checksums.

    Raises
    ------
    ModelFileError
        If the file is missing, truncated or damaged, is not a model file, or has a newer format version.
    """
    path = Path(path)
    if path.is_dir():
        raise ModelFileError(
            describe_folder(path) or f"{str(path)!r} is a folder, not a model file; give a file such as part.onnx first"
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelFileError(
            f"cannot read the model file {str(path)!r}: {describe_os_error(error)}; give a file that "
            "'onspect teach' or 'onspect export' wrote"
        ) from error
    return parse_model_file(path, data)


def describe_folder(path: Path) -> str:
    """Return what to do with a training run that was given in the place of a model file; empty for other folders."""
    if not all((path / name).is_file() for name in ("config.json", "weights.safetensors")):
        return ""
    return (
        f"{str(path)!r} is a training run, not a model file; export it first: "
        f"onspect export {shlex.quote(str(path))} -o part.onnx"
    )


def parse_model_file(path: Path, data: bytes) -> ModelFile:
    """Check a model file's bytes; path is what messages call it. Raises ModelFileError as `read_model_file` does."""
    rest, metadata = _split(path, data)
    if BASE_KEY in metadata and _METADATA_KEY not in metadata:
        raise ModelFileError(
            f"{str(path)!r} is a base file, not a model file; make one with it: "
            f"onspect teach GOOD --base {shlex.quote(str(path))} -o part.onnx"
        )
    if _METADATA_KEY not in metadata:
        raise ModelFileError(
            f"{str(path)!r} is not a model file that onspect made (it has no 'onspect' metadata); "
            "make one with 'onspect teach' or 'onspect export'"
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
    """Read the metadata of a model file.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    ModelInfo
        The metadata.

    Raises
    ------
    ModelFileError
        If the file is missing, truncated or damaged, is not a model file, or has a newer format version.
    """
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
    version 2 every file has an autoencoder of images. Readers of version 3 would judge
    the whole frame and not its region.
    """
    if info.preprocess.region is not None:
        return 4
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
        raise ModelFileError(f"{str(model.path)!r} has no earlier threshold to restore")
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
