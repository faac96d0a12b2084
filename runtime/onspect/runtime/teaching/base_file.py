"""The base file: a backbone with an empty memory that `teach` fills. Its graph is edited without the onnx package.

An ONNX file is one protocol-buffer message. New initializers, sides of the input and outputs leave every other byte
unchanged.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onspect.runtime.atomic import describe_os_error
from onspect.runtime.errors import ModelFileError
from onspect.runtime.model import file
from onspect.runtime.model.file import BASE_KEY as BASE_KEY  # its earlier place
from onspect.runtime.model.protobuf import encode_bytes, encode_varint, read_varint, walk
from onspect.runtime.records import parse_dataclass

BASE_VERSION = 1

FEATURES = ("stride8.pooled", "stride16", "stride32")
"""Outputs of the graph for fitting a memory: float32 [N, C, h, w], the first two at a sixteenth of the image."""

# Field numbers of onnx.proto.
_GRAPH = 7
_INITIALIZER, _INPUT, _OUTPUT = 5, 11, 12
_TYPES: dict[np.dtype[Any], int] = {np.dtype(np.float32): 1, np.dtype(np.int64): 7, np.dtype(np.float16): 10}
_DTYPES: dict[int, np.dtype[Any]] = {number: dtype for dtype, number in _TYPES.items()}

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class BaseInfo:
    """Metadata of a base file."""

    backbone: str
    """Name of the pretrained network."""

    weights_sha256: str
    """SHA-256 of the file of its weights; empty if it was not checked."""

    licence: str
    """Licence of the weights."""

    widths: tuple[int, ...]
    """Channels of the three stages, at strides of 8, 16 and 32 pixels."""

    graph_sha256: str = ""
    """SHA-256 of the file's bytes without metadata."""

    format_version: int = BASE_VERSION
    """Format version of the file, 1 to `BASE_VERSION`."""

    def to_dict(self) -> dict[str, Any]:
        """Return the metadata as the JSON object in the file.

        Returns
        -------
        dict[str, Any]
            Every field under its name.
        """
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class BaseFile:
    """A base file, read once and checked."""

    path: Path
    """The file."""

    graph: bytes = dataclasses.field(repr=False)
    """Its bytes without metadata."""

    info: BaseInfo = dataclasses.field()
    """Its metadata."""


def read_base_file(path: Path | str) -> BaseFile:
    """Read and check a base file.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    BaseFile
        Its graph and metadata.

    Raises
    ------
    ModelFileError
        If the file cannot be read, is damaged, is not a base file, or has a newer format version.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelFileError(
            f"cannot read the base file {str(path)!r}: {describe_os_error(error)}; "
            "give a file that 'onspect backbone' wrote"
        ) from error
    return parse_base_file(path, data)


def parse_base_file(path: Path, data: bytes) -> BaseFile:
    """Check the bytes of a base file.

    Parameters
    ----------
    path
        The name of the file in messages.
    data
        All bytes of the file.

    Returns
    -------
    BaseFile
        Its graph and metadata.

    Raises
    ------
    ModelFileError
        If the bytes are damaged, are not a base file, or have a newer format version.
    """
    graph, metadata = split_metadata(path, data)
    if BASE_KEY not in metadata:
        what = "a model file already; add to it with --add-to" if "onspect" in metadata else "not a base file"
        raise ModelFileError(f"{str(path)!r} is {what}; 'onspect backbone -o base.onnx' makes a base file")
    try:
        content = json.loads(metadata[BASE_KEY])
        version = content["format_version"]
        if version > BASE_VERSION:
            raise ModelFileError(
                f"{str(path)!r} has base format {version}, and this onspect reads up to {BASE_VERSION}: upgrade "
                "onspect on this machine"
            )
        info = parse_dataclass(BaseInfo, content)
    except (ValueError, KeyError, TypeError) as error:
        raise ModelFileError(f"{str(path)!r} has damaged metadata ({error}); make the base file again") from error
    if info.graph_sha256 != hashlib.sha256(graph).hexdigest():
        raise ModelFileError(
            f"the graph of the base file {str(path)!r} does not match its checksum: it was damaged or changed; copy it "
            "again, or make it again with 'onspect backbone'"
        )
    return BaseFile(path, graph, info)


def split_metadata(path: Path, data: bytes) -> tuple[bytes, dict[str, str]]:
    """Split an ONNX file into its graph and its metadata.

    Parameters
    ----------
    path
        The name of the file in messages.
    data
        All bytes of the file.

    Returns
    -------
    tuple[bytes, dict[str, str]]
        The bytes without metadata, and the metadata.

    Raises
    ------
    ModelFileError
        If the bytes are truncated or not an ONNX file.
    """
    rest, metadata = file.split_metadata(path, data, "copy it again")
    return bytes(rest), metadata


def read_initializers(data: bytes, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Read initializers of a model's graph.

    Parameters
    ----------
    data
        The bytes of the model.
    names
        Names of the initializers.

    Returns
    -------
    dict[str, NDArray[Any]]
        The arrays by name.

    Raises
    ------
    KeyError
        If an initializer is missing.
    """
    found = {}
    for number, _, payload, end in walk(data):
        if number == _GRAPH:
            graph = memoryview(data)[payload:end]
            for kind, _, start, stop in walk(graph):
                if kind == _INITIALIZER and (name := _name_of(graph[start:stop])) in names:
                    found[name] = _parse_tensor(graph[start:stop])
    return {name: found[name] for name in names}


def fold_channels(graph: bytes, channels: int) -> dict[str, NDArray[Any]]:
    """Return the initializers with which a base file's graph takes images of another number of channels.

    Parameters
    ----------
    graph
        The bytes of the base file's graph.
    channels
        1 or 3.

    Returns
    -------
    dict[str, NDArray[Any]]
        New values for `edit_graph`; empty for 3 channels.
    """
    if channels == 3:
        return {}
    stem = read_initializers(graph, ["stem.weight"])["stem.weight"]
    return {"stem.weight": stem.sum(axis=1, keepdims=True)}  # three equal channels need the sum of the weights


def edit_graph(
    data: bytes,
    initializers: Arrays,
    *,
    input_shape: tuple[int | str, int | str, int] | None = None,
    outputs: Sequence[str] = (),
) -> bytes:
    """Return a model with other values for some of its initializers.

    Parameters
    ----------
    data
        The bytes of the model.
    initializers
        New values by name: float16, float32 or int64 arrays of any shape.
    input_shape
        Height, width and channels of the input ``image``; a name instead of a number allows any. They also set height
        and width of the output ``error_map``. None keeps them.
    outputs
        Values inside the graph, float32, that become outputs too.

    Returns
    -------
    bytes
        The bytes of the new model.

    Raises
    ------
    ModelFileError
        If the graph has no initializer of a name.
    """
    parts, missing = [], set(initializers)
    view = memoryview(data)
    for number, start, payload, end in walk(data):
        if number == _GRAPH:
            graph, known = _edit(view[payload:end], initializers, input_shape, outputs)
            missing -= known
            parts.append(encode_bytes(_GRAPH, graph))
        else:
            parts.append(bytes(view[start:end]))
    if missing:
        raise ModelFileError(f"the file's graph has no values named {', '.join(sorted(missing))}; make it again")
    return b"".join(parts)


def _edit(
    graph: memoryview, initializers: Arrays, shape: tuple[int | str, int | str, int] | None, outputs: Sequence[str]
) -> tuple[bytes, set[str]]:
    parts, known = [], set()
    for number, start, payload, end in walk(graph):
        content = graph[payload:end]
        if number == _INITIALIZER and (name := _name_of(content)) in initializers:
            known.add(name)
            parts.append(encode_bytes(_INITIALIZER, _encode_tensor(name, initializers[name])))
        elif number == _INPUT and shape is not None and _first_text(content) == "image":
            parts.append(encode_bytes(_INPUT, _encode_value("image", 2, ["N", *shape])))
        elif number == _OUTPUT and shape is not None and _first_text(content) == "error_map":
            parts.append(encode_bytes(_OUTPUT, _encode_value("error_map", 1, ["N", *shape[:2]])))
        else:
            parts.append(bytes(graph[start:end]))
    parts += [encode_bytes(_OUTPUT, _encode_value(name, 1, ["N", "C", "h", "w"])) for name in outputs]
    return b"".join(parts), known


def _name_of(tensor: memoryview) -> str:
    return next((str(tensor[p:e], "utf-8") for number, _, p, e in walk(tensor) if number == 8), "")


def _first_text(value: memoryview) -> str:
    return next((str(value[p:e], "utf-8") for number, _, p, e in walk(value) if number == 1), "")


def _encode_tensor(name: str, array: NDArray[Any]) -> bytes:
    dimensions = b"".join(encode_varint(1 << 3) + encode_varint(side) for side in array.shape)
    kind = encode_varint(2 << 3) + encode_varint(_TYPES[array.dtype])
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return dimensions + kind + encode_bytes(8, name.encode()) + encode_bytes(9, little.tobytes("C"))


def _parse_tensor(tensor: memoryview) -> NDArray[Any]:
    sides, kind, raw = [], 0, b""
    for number, start, payload, end in walk(tensor):
        if number == 1 and payload > start and tensor[start] & 7 == 2:
            position = payload
            while position < end:
                side, position = read_varint(tensor, position)
                sides.append(side)
        elif number == 1:
            sides.append(read_varint(tensor, payload)[0])
        elif number == 2:
            kind = read_varint(tensor, payload)[0]
        elif number == 9:
            raw = bytes(tensor[payload:end])
    return np.frombuffer(raw, _DTYPES[kind].newbyteorder("<")).reshape(sides)


def _encode_value(name: str, element: int, shape: Sequence[int | str]) -> bytes:
    """Return a ValueInfoProto: a tensor of an element type, with numbers and names as sides."""
    sides = b"".join(
        encode_bytes(
            1, encode_bytes(2, side.encode()) if isinstance(side, str) else encode_varint(8) + encode_varint(side)
        )
        for side in shape
    )
    tensor = encode_varint(8) + encode_varint(element) + encode_bytes(2, sides)
    return encode_bytes(1, name.encode()) + encode_bytes(2, encode_bytes(1, tensor))
