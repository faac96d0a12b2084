"""Settings of presence: learnt from the first seconds of a line, or given in a file."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onspect.runtime.errors import ChoiceError
from onspect.runtime.explain import explaining
from onspect.runtime.model.schema import Rectangle
from onspect.runtime.records import to_float

_NUMBERS: dict[str, tuple[float, float]] = {
    "learn": (0.1, 60.0),
    "contrast": (1.0, 255.0),
    "area": (1.0, math.inf),
    "speed": (0.0, math.inf),
    "direction": (0.0, 360.0),
    "gap": (0.0, math.inf),
    "sharpness": (0.0, math.inf),
    "remember": (0.0, 3600.0),
}
KEYS = (*_NUMBERS, "region", "window", "background", "parts", "white_level")
"""The keys of ``[presence]`` in a line's configuration, and of a presence file."""


@dataclass(frozen=True)
class PresenceSettings:
    """How parts are found in the frames of a free-running camera; None is learnt, or measured while the line runs."""

    learn: float = 5.0
    """Seconds of frames from which missing settings are learnt; without effect if a background is given."""

    region: Rectangle | None = None
    """x, y, width and height of the place with parts, in pixels of the frame; None for the whole frame."""

    window: tuple[int, int] | None = None
    """Width and height of the crop around each part in pixels; None for the image size of the model."""

    background: str | Path | None = None
    """A picture of the line without parts, with the size of the frames."""

    contrast: float | None = None
    """Grey levels by which a part differs from the background, 1 to 255."""

    area: float | None = None
    """Area of a part in square pixels."""

    speed: float | None = None
    """Speed of the belt in pixels per second."""

    direction: float | None = None
    """Direction of the parts in degrees: 0 is to the right, 90 down."""

    gap: float | None = None
    """Smallest distance between two parts in pixels."""

    sharpness: float | None = None
    """Usual sharpness of a part, as `measure_sharpness` returns it."""

    parts: int | None = None
    """Number of parts in each frame; frames are then independent, as with a tray under a triggered camera."""

    remember: float = 0.5
    """Seconds in which a part that left is recognised if it comes back through the same side."""

    white_level: int | None = None
    """The 16-bit value that is white, 255 to 65535; None for that of the model, and for 65535 without a model."""

    @property
    def velocity(self) -> tuple[float, float] | None:
        """Speed along x and y in pixels per second; None if speed or direction is unknown."""
        if self.speed is None or self.direction is None:
            return None
        angle = math.radians(self.direction)
        return self.speed * math.cos(angle), self.speed * math.sin(angle)


def parse_presence(value: str, white_level: int | None = None) -> PresenceSettings:
    """Read the value of ``--presence``.

    Parameters
    ----------
    value
        ``learn=5s``, or the name of a file.
    white_level
        Value of ``--white-level``; None for that of the file.

    Returns
    -------
    PresenceSettings
        The settings.

    Raises
    ------
    ChoiceError
        If the value is neither, or the file is not valid.
    """
    if white_level is not None:
        return dataclasses.replace(parse_presence(value), white_level=white_level)
    if not value.startswith("learn="):
        if not value.endswith(".toml"):
            raise ChoiceError(f"--presence is {value!r}; give learn=SECONDS such as learn=5s, or a .toml file")
        return read_presence(Path(value))
    match = re.fullmatch(r"learn=(\d+(?:\.\d+)?)s?", value)
    if match is None:
        raise ChoiceError(f"--presence is {value!r}; give seconds such as learn=5s")
    return build_presence({"learn": float(match[1])}, Path())


def read_presence(path: Path) -> PresenceSettings:
    """Read a presence file, as ``onspect parts`` writes it; the name of the background is relative to its folder.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    PresenceSettings
        The settings.

    Raises
    ------
    ChoiceError
        If it cannot be read, is not TOML, or has an unknown key or a value out of range.
    """
    with explaining(
        ChoiceError, f"cannot read the presence file {str(path)!r}", "give a file that 'onspect parts' wrote"
    ):
        data = path.read_bytes()
    try:
        content = tomllib.loads(data.decode())
    except ValueError as error:
        raise ChoiceError(f"the presence file {str(path)!r} is not TOML ({error}); write it again") from error
    with explaining(ChoiceError, str(path), of=ChoiceError):
        return build_presence(content, path.parent)


def build_presence(content: Mapping[str, Any], folder: Path) -> PresenceSettings:
    """Return the settings of a table.

    Parameters
    ----------
    content
        The table.
    folder
        Folder to which the name of the background is relative.

    Returns
    -------
    PresenceSettings
        The settings.

    Raises
    ------
    ChoiceError
        If a key is unknown or a value is out of range.
    """
    unknown = sorted(set(content) - set(KEYS))
    if unknown:
        raise ChoiceError(f"{unknown[0]!r} is not known; presence has {', '.join(KEYS)}")
    facts: dict[str, Any] = {key: _number(key, content[key]) for key in _NUMBERS if key in content}
    for key, shape, least in (("region", "[x, y, width, height]", 16), ("window", "[width, height]", 8)):
        if key in content:
            facts[key] = _whole_numbers(key, content[key], shape)
            if min(facts[key][-2:]) < least:
                raise ChoiceError(f"{key} is {list(facts[key])}; width and height are at least {least} pixels")
    for key, least, most in (("parts", 1, math.inf), ("white_level", 255, 65535)):
        if key in content:
            if type(content[key]) is not int or not least <= content[key] <= most:
                limits = f"from {least}" if most == math.inf else f"from {least} to {most}"
                raise ChoiceError(f"{key} is {content[key]!r}; give a whole number {limits}")
            facts[key] = content[key]
    if "background" in content:
        if not isinstance(content["background"], str) or not content["background"]:
            raise ChoiceError(f"background is {content['background']!r}; give the name of a picture")
        facts["background"] = folder / content["background"]
    return PresenceSettings(**facts)


def format_presence(settings: PresenceSettings) -> str:
    """Return the content of a presence file.

    It has only the name of the background, which must be in the file's folder.

    Parameters
    ----------
    settings
        The settings.

    Returns
    -------
    str
        TOML.
    """
    lines = ["# How parts are found in the frames of this line; lengths in pixels of the frame, times in seconds."]
    for key in KEYS:
        value = getattr(settings, key)
        if value is not None and not (key == "learn" and settings.background is not None):
            shown = Path(value).name if key == "background" else value
            lines.append(f"{key} = {shown:.6g}" if isinstance(shown, float) else f"{key} = {json.dumps(shown)}")
    return "\n".join(lines) + "\n"


def _number(key: str, value: object) -> float:
    low, high = _NUMBERS[key]
    number = to_float(value)
    if number is None or not low <= number <= high or math.isinf(number):
        limits = f"from {low:g}" if math.isinf(high) else f"from {low:g} to {high:g}"
        raise ChoiceError(f"{key} is {value!r}; give a number {limits}")
    return number


def _whole_numbers(key: str, value: object, shape: str) -> tuple[int, ...]:
    count = len(shape.split(","))
    if not (isinstance(value, list) and len(value) == count and all(type(one) is int and one >= 0 for one in value)):
        raise ChoiceError(f"{key} is {value!r}; give {shape} in whole pixels")
    return tuple(value)
