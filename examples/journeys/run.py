"""Run the journeys of a new user: draw the user's pictures, run the commands, and print minutes, commands and answers.

    python examples/journeys/run.py             # all of them, at full size
    python examples/journeys/run.py 3 --small   # the third one with few and small pictures, as the tests do

Each journey is a script beside this file, one command a line. The pictures are drawn: the journeys show that the path
works and how long it takes, not how accurate it is on your parts.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from onspect.demo import DEFECT_KINDS, draw_part

FOLDER = Path(__file__).parent
_WITHOUT_TORCH = (
    "import sys; sys.modules.update(dict.fromkeys(['torch', 'onnx', 'sklearn', 'scipy', 'matplotlib'])); "
    "from onspect.runtime.cli import main; main(prog_name='onspect')"
)


@dataclass(frozen=True)
class Step:
    """A typed command: its words, seconds, exit code, and output on stdout and stderr."""

    command: str
    seconds: float
    code: int
    answer: str


def read_commands(journey: Path) -> list[list[str]]:
    """Return the commands of a journey's script, each as a list of words."""
    lines = journey.read_text(encoding="utf-8").splitlines()
    return [shlex.split(line) for line in lines if line and not line.startswith("#")]


def run(journey: Path, folder: Path, *, small: bool) -> list[Step]:
    """Draw the pictures of a journey into a folder, run its commands there, and return them; end at a failure."""
    number = int(journey.name[0])
    folder.mkdir(parents=True, exist_ok=True)
    _DRAWERS[number](folder, small)
    if number == 6:  # the user brings the file along
        _type(["onspect", "backbone", "-o", "base.onnx", "-q"], folder, [sys.executable, "-m", "onspect.runtime"])
        program = [sys.executable, "-c", _WITHOUT_TORCH]
    else:
        program = [sys.executable, "-m", "onspect.runtime"]
    steps: list[Step] = []
    for words in read_commands(journey):
        steps.append(_type(words, folder, program))
        if steps[-1].code:
            break
    return steps


def _type(words: list[str], folder: Path, program: list[str]) -> Step:
    started = time.perf_counter()
    done = subprocess.run(  # noqa: S603 - the commands of the journeys
        [*program, *words[1:]],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        check=False,
    )
    return Step(shlex.join(words), time.perf_counter() - started, done.returncode, done.stdout)


def _write(path: Path, image: NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, image)[1].tobytes())


def _draw(number: int, kind: str | None, size: int) -> NDArray[np.uint8]:
    return draw_part(np.random.default_rng([7, number]), kind, size)[0]


def _kind(number: int) -> str:
    return DEFECT_KINDS[number % len(DEFECT_KINDS)]


def _draw_good_and_new(folder: Path, good: int, size: int) -> None:
    """Draw good/, and new/ with three good and three defective parts."""
    for number in range(good):
        _write(folder / "good" / f"{number:03d}.png", _draw(number, None, size))
    for number in range(6):
        _write(folder / "new" / f"{number:03d}.png", _draw(500 + number, _kind(number) if number >= 3 else None, size))


def _draw_colour_photos(folder: Path, small: bool) -> None:
    """Draw 40 JPEG photos of 3000 x 2000 pixels and smaller, the part on a background, warm light."""
    widths = (360, 300, 240) if small else (3000, 2400, 1500)
    for number in range(16 if small else 46):
        width = widths[number % 3]
        height = width * 2 // 3
        side = height * 9 // 10
        photo = np.full((height, width), 40, np.uint8)
        part = cv2.resize(
            _draw(number, _kind(number) if number % 23 == 22 or number == 15 else None, 256),
            (side, side),
            interpolation=cv2.INTER_CUBIC,
        )
        top, left = (height - side) // 2, (width - side) // 2
        photo[top : top + side, left : left + side] = part
        noise = np.random.default_rng(number).normal(0.0, 2.0, (height, width, 1))
        colour = photo[:, :, None] * np.array([0.80, 0.92, 1.0]) + noise
        place = "new" if number >= (10 if small else 40) else "good"
        _write(folder / place / f"DSC_{number:04d}.jpg", np.clip(colour, 0, 255).astype(np.uint8))


def _draw_flat_folder(folder: Path, small: bool) -> None:
    size, good, bad = (96, 30, 6) if small else (256, 150, 30)
    for number in range(good):
        _write(folder / "photos" / f"good_{number:03d}.png", _draw(number, None, size))
    for number in range(bad):
        _write(folder / "photos" / f"bad_{number:03d}.png", _draw(1000 + number, _kind(number), size))


def _draw_labelled_photos(folder: Path, small: bool) -> None:
    size, parts, bad = (96, 12, 4) if small else (256, 50, 12)
    rows = ["file,label"]
    for number in range(parts):
        kind = _kind(number) if number < bad else None
        for shot in range(3):
            noise = np.random.default_rng([number, shot]).normal(0.0, 1.5, (size, size))
            picture = np.clip(_draw(number, kind, size) * (0.97 + 0.03 * shot) + noise, 0, 255).astype(np.uint8)
            name = f"part{number:03d}_{shot}.png"
            _write(folder / "photos" / name, picture)
            rows.append(f"{name},{kind or 'ok'}")
    (folder / "list.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


def _draw_videos(folder: Path, small: bool) -> None:
    """Draw videos in which each part is seen for three frames."""
    size, parts = (96, 12) if small else (256, 100)
    for name, numbers in (("good", range(parts)), ("today", range(2000, 2006))):
        video = cv2.VideoWriter(
            str(folder / f"{name}.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (size, size), isColor=True
        )
        for number in numbers:
            part = _draw(number, _kind(number) if number >= 2003 else None, size)
            for shot in range(3):
                noise = np.random.default_rng([number, shot]).normal(0.0, 1.0, part.shape)
                frame = np.clip(part + noise, 0, 255).astype(np.uint8)
                video.write(cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR))
        video.release()


_DRAWERS: dict[int, Callable[[Path, bool], None]] = {
    1: lambda folder, small: _draw_good_and_new(folder, 8, 96 if small else 256),
    2: _draw_colour_photos,
    3: _draw_flat_folder,
    4: _draw_labelled_photos,
    5: _draw_videos,
    6: lambda folder, small: _draw_good_and_new(folder, 10, 96 if small else 256),
}


def main() -> None:
    """Run the journeys that are asked for, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("numbers", nargs="*", type=int, help="which; all without")
    parser.add_argument("--small", action="store_true", help="few and small pictures")
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder without")
    parser.add_argument("--json", type=Path, help="write the steps into this file")
    options = parser.parse_args()
    found: dict[str, list[dict[str, Any]]] = {}
    table = ["| journey | commands | minutes |", "|---|---|---|"]
    failed = False
    with tempfile.TemporaryDirectory() as temporary:
        for journey in sorted(FOLDER.glob("*.sh")):
            if options.numbers and int(journey.name[0]) not in options.numbers:
                continue
            steps = run(journey, (options.folder or Path(temporary)) / journey.stem, small=options.small)
            for step in steps:
                print(f"$ {step.command}\n{step.answer}[{step.seconds:.0f} s, exit code {step.code}]\n", flush=True)
            failed = failed or any(step.code for step in steps)
            found[journey.stem] = [vars(step) for step in steps]
            minutes = sum(step.seconds for step in steps) / 60
            table.append(f"| {journey.stem.replace('_', ' ')} | {len(steps)} | {minutes:.1f} |")
    print("\n".join(table))
    if options.json:
        options.json.write_text(json.dumps(found, indent=2), encoding="utf-8")
    sys.exit(failed)


if __name__ == "__main__":
    main()
