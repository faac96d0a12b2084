"""Read a model file and stamp it, without the onnx package.

An onspect model file is an ONNX file with metadata in its ``metadata_props``:

- ``onspect``: JSON, `ModelInfo`.
- ``onspect.training_images``: fingerprints of the training images.
- ``onspect.looks``: perceptual hashes of the training images.
- ``onspect.checksum``: a checksum over the first two.

docs/model-file.md defines the format. An ONNX file is one protocol-buffer message. Only its outermost fields are read
here, so a new stamp leaves every other byte unchanged.
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
from onspect.runtime.errors import ModelFileError, OutputError
from onspect.runtime.fingerprints import pack_fingerprints, unpack_fingerprints
from onspect.runtime.model.protobuf import encode_bytes, walk
from onspect.runtime.model.schema import FORMAT_VERSION, Bfloat16Margin, Calibration, Looks, ModelInfo, Stamp, Threshold
from onspect.runtime.records import parse_dataclass

BASE_KEY = "onspect.base"
"""Key of the metadata of a base file (`teaching.base_file`), from which a model file is made."""

_METADATA_KEY = "onspect"
_TRAINING_IMAGES_KEY = "onspect.training_images"
_LOOKS_KEY = "onspect.looks"
_CHECKSUM_KEY = "onspect.checksum"
_METADATA_PROPS = 14  # the field's number in ModelProto, onnx.proto
_MAX_TRAINING_IMAGES = 10_000


@dataclass(frozen=True)
class ModelFile:
    """The bytes of a model file, read once and checked, with their content."""

    path: Path
    """The file."""

    data: bytes = field(repr=False)
    """All bytes of the file."""

    info: ModelInfo
    """The metadata."""

    training_images: frozenset[str] = field(repr=False)
    """Fingerprints of the training images (`fingerprint_bytes`), 10,000 at most."""

    sha256: str
    """SHA-256 of the whole file, 64 hexadecimal digits."""

    looks: Looks | None = field(default=None, repr=False)
    """Hashes of the training images, None if the file has none."""


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


def check_name(path: Path) -> None:
    """Check the name of a model file that shall be written.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    OutputError
        If its name does not end in ``.onnx``.
    """
    if path.suffix.lower() != ".onnx":
        raise OutputError(f"the model file {str(path)!r} must end in .onnx")


def describe_folder(path: Path) -> str:
    """Return what to do with a training run that was given instead of a model file.

    Parameters
    ----------
    path
        A folder.

    Returns
    -------
    str
        A sentence with the command to run. Empty if the folder is not a training run.
    """
    if not all((path / name).is_file() for name in ("config.json", "weights.safetensors")):
        return ""
    return (
        f"{str(path)!r} is a training run, not a model file; export it first: "
        f"onspect export {shlex.quote(str(path))} -o part.onnx"
    )


def parse_model_file(path: Path, data: bytes) -> ModelFile:
    """Check the bytes of a model file.

    Parameters
    ----------
    path
        The name of the file in messages.
    data
        All bytes of the file.

    Returns
    -------
    ModelFile
        The metadata, graph and checksums.

    Raises
    ------
    ModelFileError
        If the bytes are truncated or damaged, are not a model file, or have a newer format version.
    """
    rest, metadata = split_metadata(path, data)
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
    """Return the bytes of an ONNX file with new onspect metadata.

    All bytes outside the metadata stay unchanged.

    Parameters
    ----------
    data
        All bytes of the file.
    info
        The new metadata. Checksums and format version are filled in.
    training_images
        Fingerprints (`fingerprint_bytes`). The 10,000 smallest are kept, enough to recognize a folder that was
        trained on.
    looks
        Hashes of the training images; None keeps those in the file.

    Returns
    -------
    bytes
        The bytes of the new file.

    Raises
    ------
    ModelFileError
        If the bytes are truncated or not an ONNX file.
    """
    rest, metadata = split_metadata(Path(info.name), data)
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
    metadata[_CHECKSUM_KEY] = _checksum(metadata)  # last, so that a file cut between two entries is detected
    return b"".join((rest, *(_encode_entry(key, value) for key, value in metadata.items())))


def _needed_version(info: ModelInfo) -> int:
    """Return the oldest format version whose readers give the verdicts and regions of this file.

    A reader of version 1 ignores the review band and would pass its parts as ``ok``, so it must refuse such a file.
    Up to version 2 every file has an autoencoder of images. Readers of version 3 would judge the whole frame
    instead of its region. Readers of version 4 would give every frame the same size.
    """
    if info.preprocess.keep_aspect:
        return 5
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
    """Write a new threshold and its evidence into a model file, atomically.

    The previous threshold becomes the last entry of the history.

    Parameters
    ----------
    model
        The file.
    threshold
        The new threshold.
    calibration
        The evidence for it.

    Returns
    -------
    ModelInfo
        The metadata that the file has now.

    Raises
    ------
    OutputError
        If the file cannot be written. It stays unchanged.
    """
    old = model.info
    history = old.history if old.threshold is None else (*old.history, Stamp(old.threshold, old.calibration))
    return _write_info(model, dataclasses.replace(old, threshold=threshold, calibration=calibration, history=history))


def restamp_margin(model: ModelFile, margin: Bfloat16Margin) -> ModelInfo:
    """Write a margin of bfloat16 into a model file, atomically. The threshold stays.

    Parameters
    ----------
    model
        The file.
    margin
        The margin.

    Returns
    -------
    ModelInfo
        The metadata that the file has now.

    Raises
    ------
    OutputError
        If the file cannot be written. It stays unchanged.
    """
    return _write_info(model, dataclasses.replace(model.info, bfloat16=margin))


def undo_restamp(model: ModelFile) -> ModelInfo:
    """Restore the previous threshold of a model file, atomically.

    Parameters
    ----------
    model
        The file.

    Returns
    -------
    ModelInfo
        The metadata that the file has now.

    Raises
    ------
    ModelFileError
        If the file has no earlier threshold.
    OutputError
        If the file cannot be written. It stays unchanged.
    """
    if not model.info.history:
        raise ModelFileError(f"{str(model.path)!r} has no earlier threshold to restore")
    *history, last = model.info.history
    return _write_info(model, dataclasses.replace(model.info, **vars(last), history=tuple(history)))


def _write_info(model: ModelFile, info: ModelInfo) -> ModelInfo:
    write_atomically(model.path, stamp(model.data, info, model.training_images))
    sweep_abandoned(model.path)
    return info


def _hash_both(rest: bytes | memoryview, data: bytes) -> tuple[str, str]:
    """Return the SHA-256 of the graph and of the whole file, in one pass if the file begins with the graph."""
    graph = hashlib.sha256(rest)
    if not isinstance(rest, memoryview):
        return graph.hexdigest(), hashlib.sha256(data).hexdigest()
    whole = graph.copy()
    whole.update(memoryview(data)[len(rest) :])
    return graph.hexdigest(), whole.hexdigest()


def split_metadata(
    path: Path, data: bytes, remedy: str = "copy or export it again"
) -> tuple[bytes | memoryview, dict[str, str]]:
    """Split a file into its metadata and all other bytes.

    Parameters
    ----------
    path
        The name of the file in messages.
    data
        All bytes of the file.
    remedy
        End of the message if they are not an ONNX file.

    Returns
    -------
    tuple[bytes | memoryview, dict[str, str]]
        The bytes without metadata, and the metadata.

    Raises
    ------
    ModelFileError
        If the bytes are truncated or not an ONNX file.
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
        raise ModelFileError(f"{str(path)!r} is truncated or not an ONNX file ({len(data)} bytes); {remedy}") from error
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
