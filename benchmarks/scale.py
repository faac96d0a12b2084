"""What does Ray cost for an archive, and is a verdict lost if machines and workers die?

Judges the same list of images with the local engine and on Ray, in turns, and compares memory, images a second and
processor time after the start of both. Three jobs with a quarter of the list follow. In the first, workers are killed
with SIGKILL. In the second, a cluster of two machines on loopback judges it and names the share of each. In the third,
one of two machines is lost. The verdicts must always be those of the local engine, each once. Prints a table, writes
JSON, and exits with 1 if a verdict differs or Ray is below 0.9 of the local engine. Needs onspect[cpu,ray], a
calibrated model, and Linux.

    python benchmarks/scale.py part.onnx [IMAGES_FOLDER] [--images 16000] [--turns 2] [--kills 3] [--json result.json]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from onspect.runtime.cpu import available_cores
from onspect.runtime.images.files import list_images
from onspect.runtime.model.file import read_model_info

CLUSTER = Path(__file__).parents[1] / "tests" / "runtime" / "ray" / "ray_cluster.py"
SETTLED = 0.1
"""The share of rows after which an engine is under way."""

FLOOR = 0.9
_SHARE = 4  # of the list, for the jobs in which something is killed


@dataclass
class Run:
    """One job.

    seconds: in all. rate, cost: images a second and processor ms an image, beyond start-up. memory: MiB at the peak.
    """

    seconds: float
    rate: float
    cost: float
    memory: float
    verdicts: list[dict[str, Any]] = field(repr=False)
    said: str = field(repr=False)


@dataclass
class Survival:
    """Content of a job's output after a kill in the middle; the counts must be 0."""

    what: str
    missing: int
    repeated: int
    different: int


def draw_images(folder: Path, model: Path, count: int = 64) -> list[Path]:
    """Draw noisy images of the size that the model was trained on, and return their paths."""
    preprocess = read_model_info(model).preprocess
    size = [preprocess.height if not preprocess.source.height else max(preprocess.source.height)]
    size += [preprocess.width if not preprocess.source.width else max(preprocess.source.width)]
    size += [3] if preprocess.source.channels == (3,) else []
    random = np.random.default_rng(0)
    paths = [folder / f"{number:03d}.png" for number in range(count)]
    for path in paths:
        image = random.normal(128, 12, size).clip(0, 255).astype(np.uint8)
        cv2.imwrite(str(path), cv2.GaussianBlur(image, (5, 5), 0))
    return paths


def score(
    model: Path, paths: list[Path], output: Path, *options: str, meanwhile: Callable[[], None] | None = None
) -> Run:
    """Judge images with the command line, and measure it; meanwhile runs in a thread beside it."""
    command = [sys.executable, "-m", "onspect.runtime", "score", str(model), "-", "-o", str(output), "-v", *options]
    started = time.perf_counter()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        watch = Watch(process.pid)
        others = [threading.Thread(target=work) for work in (watch.watch, meanwhile) if work is not None]
        for thread in others:
            thread.start()
        _, said = process.communicate("".join(f"{path}\n" for path in paths))
        seconds = time.perf_counter() - started
        watch.over.set()
        for thread in others:
            thread.join()
    if process.returncode:
        sys.exit(f"score failed:\n{said}")
    verdicts = read_verdicts(output)
    times = sorted(datetime.fromisoformat(line["time"]).timestamp() for line in verdicts)
    return Run(seconds, settled_rate(times), settled_cost(times, watch.samples), watch.peak, verdicts, said)


def read_verdicts(output: Path) -> list[dict[str, Any]]:
    """Return the verdicts in a file or in a folder's partitions, in order."""
    files = sorted(output.glob("part-*")) if output.is_dir() else [output]
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def settled_rate(times: list[float]) -> float:
    """Return verdicts a second, from the first tenth of them to the last one."""
    begin = int(len(times) * SETTLED)
    return (len(times) - begin - 1) / max(1e-9, times[-1] - times[begin])


def settled_cost(times: list[float], samples: list[tuple[float, float]]) -> float:
    """Return processor milliseconds of all processes for each verdict in that time; 0 if the run is too short."""
    inside = [sample for sample in samples if times[int(len(times) * SETTLED)] <= sample[0] <= times[-1]]
    if len(inside) < 2:
        return 0.0
    (begin, before), (end, after) = inside[0], inside[-1]
    return 1000 * (after - before) / max(1, sum(begin <= moment < end for moment in times))


class Watch:
    """Sums the memory (PSS: shared pages count once) and processor time of a process and its children.

    peak: MiB. samples: time of day, and processor seconds until then.
    """

    def __init__(self, root: int) -> None:
        self.peak = 0.0
        self.samples: list[tuple[float, float]] = []
        self.over = threading.Event()
        self._root = root

    def watch(self) -> None:
        """Sample about four times a second until the end."""
        while not self.over.wait(0.25):
            tree = [self._root, *find_descendants(self._root)]
            self.samples.append((time.time(), sum(map(read_cpu, tree))))
            self.peak = max(self.peak, sum(map(read_pss, tree)))


def find_descendants(root: int) -> list[int]:
    """Return the process ids of a process's children, their children and so on."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(path.parent.name))
    found = []
    queue = list(children.get(root, []))
    while queue:
        process = queue.pop()
        found.append(process)
        queue += children.get(process, [])
    return found


def read_cpu(process: int) -> float:
    """Return the processor seconds of a process, 0 for one that has ended."""
    with suppress(OSError):
        user, system = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
    return 0.0


def read_pss(process: int) -> float:
    """Return a process's memory in MiB, 0 for one that has ended."""
    with suppress(OSError):
        match = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{process}/smaps_rollup").read_text(), re.MULTILINE)
        return int(match[1]) / 1024 if match else 0.0
    return 0.0


@contextmanager
def cluster(*cores: int) -> Iterator[tuple[str, Callable[[], None]]]:
    """Start machines with these numbers of cores on loopback; return their address, and what stops the last."""
    command = [sys.executable, str(CLUSTER), *map(str, cores)]
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # its addresses are those of loopback, for who joins it, too
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin = process.stdin

        def lose() -> None:
            stdin.write("lose\n")
            stdin.flush()

        yield process.stdout.readline().strip(), lose
        process.stdin.close()


def wait_for_partitions(output: Path, count: int) -> None:
    """Wait until a job has written this number of partitions; end the benchmark after ten minutes."""
    end = time.monotonic() + 600
    while len(list(output.glob("part-*"))) < count:
        if time.monotonic() > end:
            os._exit(1)
        time.sleep(0.01)


def kill_workers(output: Path, kills: int) -> None:
    """Kill one worker after the other with SIGKILL, each when there are a few more partitions."""
    for turn in range(kills):
        wait_for_partitions(output, 2 + 6 * turn)
        for worker in find_workers()[:1]:
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)


def find_workers() -> list[int]:
    """Return the process ids of the workers that judge."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            title = path.read_bytes()
            if title.startswith(b"ray::") and b"Scorer" in title:
                found.append(int(path.parent.name))
    return found


def compare(what: str, run: Run, reference: Run) -> Survival:
    """Compare a job's verdicts with the local engine's, except for timings."""
    found = [line["index"] for line in run.verdicts]
    judged = {line["index"]: without_timings(line) for line in run.verdicts}
    expected = {line["index"]: without_timings(line) for line in reference.verdicts}
    return Survival(
        what,
        missing=len(expected.keys() - judged.keys()),
        repeated=len(found) - len(set(found)),
        different=sum(judged[index] != expected[index] for index in judged.keys() & expected.keys()),
    )


def without_timings(line: dict[str, Any]) -> dict[str, Any]:
    """Return a verdict without the fields that differ from run to run."""
    return {name: value for name, value in line.items() if name not in ("time", "latency_ms")}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--images", type=int, default=16000)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        files = list_images(options.folder)[0] if options.folder else draw_images(work, options.model)
        paths = [files[number % len(files)] for number in range(options.images)]
        result = measure(options.model, paths, work, options.turns, options.kills)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    broken = any(sum(case[name] for name in ("missing", "repeated", "different")) for case in result["survival"])
    slow = result["ratio"] < FLOOR
    print("a verdict was lost, repeated or changed" if broken else "every verdict is there once, and the same")
    if slow:
        print(f"Ray is below {FLOOR} of the local engine")
    sys.exit(1 if broken or slow else 0)


def measure(model: Path, paths: list[Path], work: Path, turns: int, kills: int) -> dict[str, Any]:
    """Run every part, print the results, and return them."""
    cores = available_cores()
    print(f"{len(paths)} images, {cores} cores, load {os.getloadavg()[0]:.1f} before")
    pairs = []
    for turn in range(turns):
        local = score(model, paths, work / f"local-{turn}.jsonl")
        on_ray = score(model, paths, work / f"ray-{turn}", "--engine", "ray")
        pairs.append((local, on_ray))
        show(f"turn {turn + 1}: local", local)
        show(f"turn {turn + 1}: Ray", on_ray)
    ratio = statistics.median(on_ray.rate / local.rate for local, on_ray in pairs)
    print(f"Ray / local, images/s beyond start-up: {ratio:.2f} (median of {turns})")
    cost = statistics.median(local.cost / max(1e-9, on_ray.cost) for local, on_ray in pairs)
    print(f"Ray / local, images a second of processor time: {cost:.2f}; a busy machine adds little to this one")
    cases = [compare("undisturbed", on_ray, local) for local, on_ray in pairs]

    paths = paths[: len(paths) // _SHARE]
    reference = score(model, paths, work / "local.jsonl")

    output = work / "killed"
    killed = score(model, paths, output, "--engine", "ray", meanwhile=lambda: kill_workers(output, kills))
    cases.append(
        compare(f"{kills} workers killed, {killed.said.count('a worker died')} partitions again", killed, reference)
    )

    with cluster(1, 1) as (address, _):
        spread = score(model, paths, work / "two", "--engine", "ray", "--address", address)
    machines = dict(reversed(pair) for pair in re.findall(r"(\d+) images were judged on (.*)", spread.said))
    print("two machines of 1 core")
    for machine, images in machines.items():
        print(f"    {images} images on {machine}")
    cases.append(compare("two machines", spread, reference))

    with cluster(1, 1) as (address, lose):

        def lose_one() -> None:
            wait_for_partitions(work / "lost", 4)
            lose()

        lost = score(model, paths, work / "lost", "--engine", "ray", "--address", address, meanwhile=lose_one)
    cases.append(compare("one of two machines lost", lost, reference))

    print(f"\n{'':44} missing repeated different")
    for case in cases:
        print(f"{case.what:44} {case.missing:7} {case.repeated:8} {case.different:9}")
    return {
        "images": len(pairs[0][0].verdicts),
        "cores": cores,
        "ratio": ratio,
        "ratio_by_processor_time": cost,
        "turns": [{"local": figures(local), "ray": figures(on_ray)} for local, on_ray in pairs],
        "machines": machines,
        "survival": [asdict(case) for case in cases],
    }


def figures(run: Run) -> dict[str, float]:
    """Return a run's figures."""
    return {"seconds": run.seconds, "images_per_second": run.rate, "processor_ms": run.cost, "memory_mib": run.memory}


def show(what: str, run: Run) -> None:
    """Print a run's figures."""
    speed = f"{run.rate:8.1f} images/s {run.cost:6.2f} processor ms"
    print(f"{what:24} {speed} {run.seconds:6.1f} s in all {run.memory:6.0f} MiB", flush=True)


if __name__ == "__main__":
    main()
