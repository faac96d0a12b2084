"""An ONNX graph of one node, encoded by hand because the runtime does not need the package onnx."""

from __future__ import annotations

from onspect.runtime.model.protobuf import encode_bytes, encode_varint

_FLOAT = 1  # TensorProto.DataType
_LENGTH = 4


def build_tiny_graph() -> bytes:
    """Return a graph that doubles ``numbers``, float32 [4], into ``doubled``.

    Returns
    -------
    bytes
        The ONNX file.
    """
    node = encode_bytes(1, b"numbers") * 2 + encode_bytes(2, b"doubled") + encode_bytes(4, b"Add")
    graph = (
        encode_bytes(1, node)
        + encode_bytes(2, b"tiny")
        + encode_bytes(11, _describe_value(b"numbers"))
        + encode_bytes(12, _describe_value(b"doubled"))
    )
    opset = encode_bytes(1, b"") + _encode_integer(2, 13)
    return _encode_integer(1, 8) + encode_bytes(7, graph) + encode_bytes(8, opset)


def _describe_value(name: bytes) -> bytes:
    shape = encode_bytes(1, _encode_integer(1, _LENGTH))
    tensor = _encode_integer(1, _FLOAT) + encode_bytes(2, shape)
    return encode_bytes(1, name) + encode_bytes(2, encode_bytes(1, tensor))


def _encode_integer(number: int, value: int) -> bytes:
    return encode_varint(number << 3) + encode_varint(value)
