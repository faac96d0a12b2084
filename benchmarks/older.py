"""How much processor time does onspect take, as a share of that of an older commit?

OLDER is a working tree of that commit, such as of `git worktree add --detach older faf0f6f`. Both take turns on the
same files: a start (`onspect score` of one image), image files to verdicts, and frames of `onspect run` with a JSONL
file. Processor time is compared because it changes little on a busy machine. Prints the smallest of all turns and the
ratios of each turn (median, 10% to 90%). Exits with 1 if a ratio of the smallest is above --most. Without images it
draws some. Needs onspect[cpu]; not for Windows.

    python benchmarks/older.py OLDER part.onnx [IMAGES...] [--count 400] [--turns 41] [--only start]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from race import Entry, compiled_environment, describe_averages, race, race_images, tree_environment

FEW = 8  # frames of the run whose time, mostly of its start, is subtracted


def time_process(arguments: list[str], environment: dict[str, str]) -> float:
    """Return the processor seconds of one `onspect` command, with all of its threads."""
    command = [sys.executable, "-m", "onspect.runtime", *arguments]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    with process.stderr as pipe:
        told = pipe.read().decode(errors="replace")
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}: {told}")
    return usage.ru_utime + usage.ru_stime


def time_turns(environments: list[dict[str, str]], arguments: list[str], turns: int) -> NDArray[np.float64]:
    """Return processor seconds [turns, 2] of a command with the older and with the present code."""
    for environment in environments:
        time_process(arguments, environment)  # compiles modules
    rows = []
    for turn in range(turns):
        order = (0, 1) if turn % 2 else (1, 0)
        found = {place: time_process(arguments, environments[place]) for place in order}
        rows.append([found[0], found[1]])
    return np.array(rows)


def link_images(paths: list[str], folder: Path) -> Path:
    """Return a new folder with a link to each path."""
    folder.mkdir()
    for number, path in enumerate(paths):
        (folder / f"{number:06d}{Path(path).suffix}").symlink_to(path)
    return folder


def time_batch(trees: list[Path], model: Path, paths: list[str], turns: int) -> NDArray[np.float64]:
    """Return processor seconds an image [turns, 2] of image files to lines of JSON, on all cores."""
    passes, _ = race([Entry("onspect", model, tree=tree) for tree in trees], paths, turns)
    return np.array([[told["processor"] for told in each] for each in passes]).T / len(paths)


def time_frames(
    environments: list[dict[str, str]], model: Path, paths: list[str], turns: int, folder: Path
) -> NDArray[np.float64]:
    """Return processor seconds a frame [turns, 2] of `onspect run`, without its start."""
    sink = ["--sink", f"jsonl:{folder / 'verdicts.jsonl'}"]
    many, few = link_images(paths * 5, folder / "many"), link_images(paths[:FEW], folder / "few")
    short = time_turns(environments, ["run", str(model), str(few), *sink], turns)
    whole = time_turns(environments, ["run", str(model), str(many), *sink], turns)
    return np.asarray((whole - short.min(axis=0)) / (5 * len(paths) - FEW), np.float64)


def main() -> int:
    """Run the comparison and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("older", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("images", nargs="*")
    parser.add_argument("--count", type=int, default=400, help="Images a pass; frames of a run are five times as many.")
    parser.add_argument("--turns", type=int, default=41)
    parser.add_argument("--most", type=float, default=1.03)
    parser.add_argument("--only", choices=["start", "file", "frame"], help="One of the three measures.")
    arguments = parser.parse_args()
    model, turns = arguments.model.resolve(), arguments.turns
    trees = [arguments.older.resolve(), Path(__file__).resolve().parent.parent]
    print(f"{model.name}, {arguments.count} images a pass, {turns} turns; {describe_averages()} at the start")
    worst = 0.0
    with (
        race_images(model, arguments.images, arguments.count) as paths,
        tempfile.TemporaryDirectory() as folder,
    ):
        environments = [compiled_environment(Path(folder, "compiled")) | tree_environment(tree) for tree in trees]
        start = ["score", str(model), paths[0], "-q"]
        measures: dict[str, tuple[Callable[[], NDArray[np.float64]], float, str]] = {
            "start": (lambda: time_turns(environments, start, turns), 1e3, "ms"),
            "file": (lambda: time_batch(trees, model, paths, turns), 1e6, "us"),
            "frame": (lambda: time_frames(environments, model, paths, turns, Path(folder)), 1e6, "us"),
        }
        for name in [arguments.only] if arguments.only else list(measures):
            measure, factor, unit = measures[name]
            seconds = measure()
            least, ratios = seconds.min(axis=0), seconds[:, 1] / seconds[:, 0]
            worst = max(worst, least[1] / least[0])
            low, middle, high = np.percentile(ratios, (10, 50, 90))
            print(
                f"{name:<6}{least[0] * factor:>8.1f} {unit} older {least[1] * factor:>8.1f} {unit} now, "
                f"ratio {least[1] / least[0]:.3f}; turns {middle:.3f} ({low:.3f} to {high:.3f})",
                flush=True,
            )
    return 1 if worst > arguments.most else 0


if __name__ == "__main__":
    raise SystemExit(main())
