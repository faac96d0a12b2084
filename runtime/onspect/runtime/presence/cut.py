"""Cut parts out of a source's frames, as files for teaching, calibration and scoring."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

import cv2

from onspect.runtime.atomic import check_place, make_folder, write_atomically
from onspect.runtime.errors import ImageError, OutputError
from onspect.runtime.presence.gate import PresenceGate, Step, hold
from onspect.runtime.presence.settings import PresenceSettings, format_presence
from onspect.runtime.sources.base import Source


@dataclass
class CutParts:
    """Result of a cut."""

    frames: int = 0
    """Number of frames."""

    written: int = 0
    """Number of pictures, one for each part."""

    faults: list[tuple[str, str]] = field(default_factory=list)
    """Part id (``-`` for a frame without a part) and reason of each part that could not be cut out."""


def cut_parts(source: Source, settings: PresenceSettings, output: Path | str, count: int | None = None) -> CutParts:
    """Write each part of a source to ``output/parts/00001.png`` and so on, and the learnt settings to presence.toml.

    Ctrl-C ends the cut of a camera. The first part creates the folder and its settings, so that an interruption leaves
    pictures that can be used.

    Parameters
    ----------
    source
        The source.
    settings
        The known settings; the others are learnt.
    output
        The folder; it must be empty or missing.
    count
        Number of parts after which the cut ends; None for no limit.

    Returns
    -------
    CutParts
        The counts and the faults.

    Raises
    ------
    OutputError
        If the folder is not empty or cannot be written.
    """
    output = Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise OutputError(f"{str(output)!r} is not an empty folder; give a new one")
    check_place(output, folder=True)
    gate, found = PresenceGate(settings), CutParts()
    with source:
        try:
            for capture in source:
                found.frames += 1
                _write(gate.feed(hold(capture, found.frames, live=source.live)), gate, output, found)
                if count is not None and found.written >= count:
                    break
        except KeyboardInterrupt:
            if not source.live:
                raise
    if count is None or found.written < count:
        _write(gate.flush(), gate, output, found)
    if found.written:
        _write_settings(gate, output)
    return found


def _write(step: Step, gate: PresenceGate, output: Path, found: CutParts) -> None:
    for view in step.views:
        crop = view.crop()
        if isinstance(crop, ImageError):
            found.faults.append((view.part or "-", str(crop)))
            continue
        if gate.settings.window is None:
            gate.settings = dataclasses.replace(gate.settings, window=crop.shape[1::-1])
        name = f"{int(view.part):05d}" if view.part and view.part.isdigit() else str(view.part)
        make_folder(output / "parts")
        if not found.written:
            _write_settings(gate, output)
        write_atomically(output / "parts" / f"{name}.png", cv2.imencode(".png", crop)[1].tobytes())
        found.written += 1


def _write_settings(gate: PresenceGate, output: Path) -> None:
    settings = gate.settings
    if gate.background is not None:
        write_atomically(output / "background.png", cv2.imencode(".png", gate.background)[1].tobytes())
        settings = dataclasses.replace(settings, background=output / "background.png")
    elif settings.background is not None:
        background = Path(settings.background)
        write_atomically(output / background.name, background.read_bytes())
    write_atomically(output / "presence.toml", format_presence(settings).encode())
