"""Run loops over image files in turns, each in its own process, so that a disturbance affects all of them."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onspect.runtime.bench.images import choose_images, draw_images
from onspect.runtime.bench.machine import LoadMeter
from onspect.runtime.bench.results import Load
from onspect.runtime.cli.images import expand_images
from onspect.runtime.inspection.inspector import Inspector

_LOOPS = Path(__file__).with_name("loops.py")


@dataclass(frozen=True)
class Entry:
    """A loop to compare: its name in `loops.py`, the model file, and the Python that runs it (this one by default).

    tree: working tree of another commit, whose `loops.py` and code run; None for the code of this process.
    """

    loop: str
    model: Path
    python: str = sys.executable
    tree: Path | None = None


@contextmanager
def race_images(model: Path, arguments: Sequence[str], count: int) -> Iterator[list[str]]:
    """Return the given number of image paths, some repeated; draw images if no argument names any."""
    inspector = Inspector(model, provider="cpu")
    with tempfile.TemporaryDirectory() as folder:
        found = [Path(path) for path in expand_images(tuple(arguments))] or draw_images(
            Path(folder), inspector.info.preprocess
        )
        chosen = choose_images(found, [inspector])
        yield [str(path.resolve()) for path in itertools.islice(itertools.cycle(chosen), count)]


def race(entries: Sequence[Entry], paths: Sequence[str], turns: int) -> tuple[list[list[dict[str, Any]]], Load]:
    """Return the results of each pass over the images, one list for each entry, and the load of the machine."""
    meter = LoadMeter()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        names = Path(folder, "paths.json")
        names.write_text(json.dumps(list(paths)), encoding="utf-8")
        servers = [stack.enter_context(_serve(entry, names)) for entry in entries]
        for server in servers:
            _ask(server)  # warms up: files into the system's cache, buffers allocated
        found: list[list[dict[str, Any]]] = [[] for _ in entries]
        for _ in range(turns):
            for server, told in zip(servers, found, strict=True):
                told.append(_ask(server))
    return found, meter.stop()


@contextmanager
def _serve(entry: Entry, names: Path) -> Iterator[subprocess.Popen[str]]:
    loops = _LOOPS if entry.tree is None else entry.tree / "benchmarks" / _LOOPS.name
    environment = os.environ | ({} if entry.tree is None else tree_environment(entry.tree))
    command = [entry.python, str(loops), entry.loop, str(entry.model), str(names)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as server:
        yield server
        assert server.stdin is not None
        server.stdin.close()


def _ask(server: subprocess.Popen[str]) -> dict[str, Any]:
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write("go\n")
    server.stdin.flush()
    answer = server.stdout.readline()
    if not answer:
        raise SystemExit(f"{' '.join(map(str, server.args))} ended")  # type: ignore[arg-type]  # a list here
    return dict(json.loads(answer))


def tree_environment(tree: Path) -> dict[str, str]:
    """Return the variable with which Python takes onspect from a working tree."""
    parts = ("runtime", "training", "export", "calibration", "compare", "demo")
    return {"PYTHONPATH": os.pathsep.join(str(tree / part) for part in parts)}


def compiled_environment(folder: Path) -> dict[str, str]:
    """Return an environment in which Python keeps compiled modules in a folder, as pip does for installed packages."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return kept | {"PYTHONPYCACHEPREFIX": str(folder)}


def describe_averages() -> str:
    """Return the system's load averages as text, if it has them."""
    if not hasattr(os, "getloadavg"):
        return "load average unknown"
    return "load average " + ", ".join(f"{value:.2f}" for value in os.getloadavg())
