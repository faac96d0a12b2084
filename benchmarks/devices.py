"""Does a run on several devices train the same as a run on one? Losses, resumption, time a step, and a kill.

Draws parts, trains each variant on one device and on several with the same global batch, and compares the curves: the
largest relative difference of any loss in any epoch. A row for one and two threads on one device shows the effect of
another order of summation alone. Then one device resumes a run of several, and several resume a run of one. At last one
of several processes is killed. Prints a table and writes JSON. CPU processes share the cores, so their times do not
predict those of several GPUs. Needs onspect[cpu,train].

    python benchmarks/devices.py [--device cuda] [--devices 2] [--precision bf16-mixed] [--json result.json]
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from onspect.demo.parts import draw_dataset

CHOICES = ("--preset", "fast", "--size", "64", "--epochs", "4", "--batch-size", "8")
LOSSES = ("loss", "held_out", "kl", "critic", "regularization")
WAIT_S = 600


def main() -> None:
    """Run all of it and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--devices", type=int, default=2)
    parser.add_argument("--precision", default="32-true")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    one = ("--device", given.device, "--precision", given.precision)
    several = (*one, "--devices", str(given.devices))
    result: dict[str, object] = {"device": given.device, "devices": given.devices, "precision": given.precision}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw_dataset(folder / "parts", seed=0, size=64, train=64, good=0, defective=0)
        parts = str(folder / "parts")
        print(f"{'':<34}{'difference':>14}")
        for variant in ("cae", "vae", "aae"):
            runs = [folder / f"{variant}-{count}" for count in ("one", "several")]
            for run, places in zip(runs, (one, several), strict=True):
                train(parts, "-o", str(run), "-m", variant, *CHOICES, *places)
            result[variant] = show(f"{variant}: 1 against {given.devices}", runs[0], runs[1])
        train(parts, "-o", str(folder / "threads"), *CHOICES, *one, threads=2)
        result["threads"] = show("cae: 1 thread against 2 threads", folder / "cae-one", folder / "threads")
        for title, first, then in (
            (f"cae: begun on {given.devices}, ended on 1", several, one),
            (f"cae: begun on 1, ended on {given.devices}", one, several),
        ):
            run = folder / f"cut-{title[-1]}"
            cut(parts, run, first, signal.SIGINT)
            train("--resume", "-o", str(run), *then)
            result[title] = show(title, folder / "cae-one", run)
        seconds = cut(parts, folder / "killed", several, signal.SIGKILL)
        print(f"\nafter one of {given.devices} processes is killed, the command has ended in {seconds:.1f} s")
        result["seconds after a kill"] = seconds
        for count in ("one", "several"):
            epochs = [line["seconds"] for line in read(folder / f"cae-{count}", "log.jsonl")]
            print(f"{count:<8} {(epochs[-1] - epochs[0]) / (len(epochs) - 1):.2f} s an epoch of the cae")
    if given.json is not None:
        given.json.write_text(json.dumps(result, indent=1) + "\n")


def train(*arguments: str, threads: int = 1) -> None:
    """Run ``onspect train`` to its end."""
    environment = dict(os.environ) | {"OMP_NUM_THREADS": str(threads)}
    subprocess.run(command(*arguments), check=True, capture_output=True, timeout=WAIT_S, env=environment)


def command(*arguments: str) -> list[str]:
    """Return ``onspect train`` with arguments."""
    return [sys.executable, "-m", "onspect.runtime", "train", *arguments]


def cut(parts: str, run: Path, places: tuple[str, ...], number: signal.Signals) -> float:
    """Train until there is a checkpoint, then send a signal; return the seconds until the command has ended.

    A kill goes to the last process that the command has started, everything else to the command.
    """
    environment = dict(os.environ) | {"OMP_NUM_THREADS": "1"}
    arguments = [*command(parts, "-o", str(run), *CHOICES, *places)]
    with subprocess.Popen(arguments, stderr=subprocess.DEVNULL, env=environment) as process:
        while not (run / "checkpoint.safetensors").exists():
            if process.poll() is not None:
                raise RuntimeError("training ended before it was cut")
            time.sleep(0.005)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(children[-1]) if number == signal.SIGKILL else process.pid, number)
        began = time.monotonic()
        process.wait(WAIT_S)
        return time.monotonic() - began


def show(title: str, one: Path, other: Path) -> float:
    """Print and return the difference between two runs' losses."""
    difference = largest_difference(read(one, "log.jsonl"), read(other, "log.jsonl"))
    print(f"{title:<34}{difference:>14.1e}", flush=True)
    return difference


def largest_difference(one: list[dict[str, float]], other: list[dict[str, float]]) -> float:
    """Return the largest relative difference of any loss in any of the lines."""
    return max(
        abs(mine[loss] - theirs[loss]) / abs(mine[loss])
        for mine, theirs in zip(one, other, strict=True)
        for loss in LOSSES
        if mine.get(loss)
    )


def read(run: Path, name: str) -> list[dict[str, float]]:
    """Return the lines of a run's log."""
    return [json.loads(line) for line in (run / name).read_text().splitlines()]


if __name__ == "__main__":
    main()
