"""Protocol buffers by hand: just what it takes to read and replace parts of an ONNX file without the onnx package."""

from __future__ import annotations

from collections.abc import Iterator


def walk(data: bytes | memoryview) -> Iterator[tuple[int, int, int, int]]:
    """Yield number, start, payload start and end of each field of a protocol-buffer message."""
    position = 0
    while position < len(data):
        start = position
        key, position = read_varint(data, position)
        wire_type = key & 7
        payload = position
        if wire_type == 0:
            _, end = read_varint(data, position)
        elif wire_type == 1:
            end = position + 8
        elif wire_type == 2:
            length, payload = read_varint(data, position)
            end = payload + length
        elif wire_type == 5:
            end = position + 4
        else:
            raise ValueError(f"wire type {wire_type} at byte {start}")
        if end > len(data):
            raise ValueError(f"field at byte {start} ends at {end} of {len(data)}")
        yield key >> 3, start, payload, end
        position = end
    if not data:
        raise ValueError("empty")


def read_varint(data: bytes | memoryview, position: int) -> tuple[int, int]:
    """Return a number and the position behind it; raises ValueError if the data end inside it."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            raise ValueError("ends inside a number")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("number too long")


def encode_varint(value: int) -> bytes:
    """Return a number of 0 or more as a varint."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def encode_bytes(number: int, payload: bytes) -> bytes:
    """Return a field of bytes, text or a message."""
    return encode_varint(number << 3 | 2) + encode_varint(len(payload)) + payload
