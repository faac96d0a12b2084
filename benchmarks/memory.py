"""How much memory does `onspect score` need, and does it grow with the number of images?

Fills a folder with --count images (links to a few drawn ones, or to yours), runs `onspect score` on it, and reads the
resident memory of the process. Prints the memory when a tenth, a half and all of the verdicts are written, and the
peak. Exits with 1 if the peak is above 120 MiB, or memory grows by more than 2 MiB after the first tenth. Needs
onspect[cpu] and Linux.

    python benchmarks/memory.py part.onnx [IMAGES...] [--count 100000] [--json result.json]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from race import compiled_environment, describe_averages, race_images

MOST = 120.0
GROWTH = 2.0


def read_memory(process: int) -> tuple[float, float] | None:
    """Return a process's resident memory and its peak, in MiB; None if it has ended."""
    try:
        text = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    except OSError:
        return None
    found = dict(re.findall(r"^(VmRSS|VmHWM):\s+(\d+) kB", text, re.MULTILINE))
    return (int(found["VmRSS"]) / 1024.0, int(found["VmHWM"]) / 1024.0) if len(found) == 2 else None


def count_lines(path: Path, seen: int, place: int) -> tuple[int, int]:
    """Return the number of lines of a growing file and the current place, from the number up to an earlier place."""
    if not path.exists():
        return seen, place
    with path.open("rb") as file:
        file.seek(place)
        new = file.read()
    return seen + new.count(b"\n"), place + len(new)


def main() -> int:
    """Run the command on the images and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("images", nargs="*")
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if not Path("/proc/self/status").exists():
        print("skipped: this system does not tell a process's memory in /proc")
        return 0
    averages = describe_averages()
    samples: list[tuple[int, float, float]] = []
    with race_images(arguments.model, arguments.images, 64) as sources, tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.count):
            source = Path(sources[number % len(sources)])
            target = Path(folder, "images", f"{number // 1000:04}", f"{number:07}{source.suffix}")
            if number % 1000 == 0:
                target.parent.mkdir(parents=True)
            target.symlink_to(source)
        output = Path(folder, "verdicts.jsonl")
        command = [sys.executable, "-m", "onspect.runtime", "score", arguments.model, f"{folder}/images", "-q"]
        environment = compiled_environment(Path(folder, "compiled"))
        subprocess.run([*command[:5], sources[0], "-o", os.devnull], env=environment, check=True)
        started = time.perf_counter()
        lines = place = 0
        with subprocess.Popen([*command, "-o", output, "--provider", "cpu"], env=environment) as process:
            while process.poll() is None:
                found = read_memory(process.pid)
                lines, place = count_lines(output, lines, place)
                if found is not None:
                    samples.append((lines, *found))
                time.sleep(0.05)
        took = time.perf_counter() - started
        lines, _ = count_lines(output, lines, place)
    if process.returncode or lines != arguments.count:
        print(f"onspect score ended with {process.returncode} and {lines} verdicts")
        return 1
    tenth, half, whole = (max(now for done, now, _ in samples if done <= share * lines) for share in (0.1, 0.5, 1.0))
    peak = samples[-1][2]
    print(f"{arguments.model.name}, {lines} images in {took:.0f} s on {os.cpu_count()} cores; {averages} at the start")
    print("  verdicts written     10%     50%     all    peak")
    print(f"  MiB             {tenth:>8.1f}{half:>8.1f}{whole:>8.1f}{peak:>8.1f}   promised: peak {MOST:.0f}, flat")
    if arguments.json:
        content = {"images": lines, "seconds": took, "tenth": tenth, "half": half, "all": whole, "peak": peak}
        arguments.json.write_text(json.dumps(content, indent=1), encoding="utf-8")
    return 1 if peak > MOST or whole - tenth > GROWTH else 0


if __name__ == "__main__":
    raise SystemExit(main())
