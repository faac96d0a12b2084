"""The parts of the protocol-buffer format that are needed to edit an ONNX file without the onnx package."""

from __future__ import annotations

from collections.abc import Iterator


def walk(data: bytes | memoryview) -> Iterator[tuple[int, int, int, int]]:
    """Yield the position of each field of a protocol-buffer message.

    Parameters
    ----------
    data
        The bytes of the message.

    Returns
    -------
    Iterator[tuple[int, int, int, int]]
        The number of the field; the positions of its first byte, of its payload, and behind its last byte.

    Raises
    ------
    ValueError
        If the message is empty, truncated, or has an unknown wire type.
    """
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
    """Read a number of variable length.

    Parameters
    ----------
    data
        The bytes of the message.
    position
        The position of the first byte, from 0.

    Returns
    -------
    tuple[int, int]
        The number, and the position behind it.

    Raises
    ------
    ValueError
        If the data end inside the number, or it has more than ten bytes.
    """
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
    """Encode a number with variable length.

    Parameters
    ----------
    value
        The number, 0 or more.

    Returns
    -------
    bytes
        One byte for each 7 bits.
    """
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def encode_bytes(number: int, payload: bytes) -> bytes:
    """Encode a field with bytes, text or a message.

    Parameters
    ----------
    number
        The number of the field, from 1.
    payload
        The bytes.

    Returns
    -------
    bytes
        Key, length and payload.
    """
    return encode_varint(number << 3 | 2) + encode_varint(len(payload)) + payload
