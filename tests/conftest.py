"""Fixtures for the tests of several parts: the tiny model file, images of one brightness, and the command line."""

from __future__ import annotations

import logging
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from filelock import FileLock
from hypothesis import settings

from onspect.runtime import credentials
from onspect.runtime.cli import main
from onspect.runtime.model.schema import ModelInfo, Threshold

from .tiny_model import SIDE, build_graph, make_info, write_model

collect_ignore = [
    str(path)
    for path in Path(__file__).parent.rglob("*.py")
    if not path.name.startswith("test_") and path.name != "conftest.py"
]
"""Helpers and scripts that tests start: --doctest-modules would import them all."""

settings.register_profile("onspect", deadline=None, database=None, derandomize=True, max_examples=30)
settings.register_profile("search", deadline=None, database=None, max_examples=3000)
settings.load_profile("onspect")
"""The same cases in every run; ``pytest --hypothesis-profile=search`` looks for new ones."""

MODEL_THRESHOLD = Threshold(score=0.0062, map=0.0062)
"""Parts brightness 128 +- 20 from the rest."""


def pytest_configure() -> None:
    """Set up the process: one thread a worker of pytest-xdist, for there are more workers than cores.

    Processes that tests start hear Ctrl-C, also where the shell started the tests in the background.
    """
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by torch when it is imported, here or in a process
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Let ``-n auto`` be one more than the cores: a third of the tests' time they wait for sockets and processes."""
    return len(os.sched_getaffinity(0)) + 1 if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1) + 1


@pytest.fixture(scope="session")
def common_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of the session, the same for all workers of pytest-xdist."""
    base = tmp_path_factory.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    root.mkdir(exist_ok=True)
    return root


@pytest.fixture(scope="session")
def share(common_folder: Path) -> Callable[[str, Callable[[Path], object]], Path]:
    """Return a function that gives the folder of a name, which it has filled with a function.

    That happens once a session: the workers of pytest-xdist share the folders, and wait until one is filled. Tests
    read the files in them, and write elsewhere.
    """

    def fill(name: str, work: Callable[[Path], object]) -> Path:
        folder, done = common_folder / name, common_folder / f"{name}.done"
        with FileLock(common_folder / f"{name}.lock"):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of a worker that failed on the way
                folder.mkdir()
                work(folder)
                done.touch()
        return folder

    return fill


@pytest.fixture(scope="session", autouse=True)
def exported_backbones(common_folder: Path) -> None:
    """Keep exported backbones in one folder of the session, and not in that of the user; `.ci/run` names its own."""
    os.environ.setdefault("ONSPECT_CACHE", str(common_folder / "backbones"))


@pytest.fixture(autouse=True)
def plain_logging() -> None:
    """Undo the log settings of an earlier test's command, so that `caplog` sees the log of every test."""
    logger = logging.getLogger("onspect")
    logger.propagate = True
    logger.handlers.clear()
    logger.setLevel(logging.NOTSET)


@pytest.fixture(autouse=True)
def no_known_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the secrets of earlier tests, whose words may be in the messages of this one."""
    monkeypatch.setattr(credentials, "_known", {})
    monkeypatch.setattr(credentials, "_ordered", ())


@pytest.fixture(scope="session")
def tiny_graph() -> Callable[..., bytes]:
    """Return the function that builds the tiny ONNX graph, without onspect metadata."""
    return build_graph


@pytest.fixture(scope="session")
def tiny_info() -> Callable[..., ModelInfo]:
    """Return the function that makes a tiny model's `ModelInfo`."""
    return make_info


@pytest.fixture(scope="session")
def write_tiny_model() -> Callable[..., Path]:
    """Return the function that writes a tiny model file."""
    return write_model


@pytest.fixture
def uncalibrated(tmp_path: Path) -> Path:
    """Return a tiny model file without a threshold."""
    return write_model(tmp_path / "uncalibrated.onnx")


@pytest.fixture
def calibrated(tmp_path: Path) -> Path:
    """Return a tiny model file whose threshold parts brightness 128 +- 20 from the rest."""
    return write_model(tmp_path / "part.onnx", threshold=MODEL_THRESHOLD)


@pytest.fixture(scope="session")
def write_image() -> Callable[..., Path]:
    """Return a function that writes an image of one brightness, in the format of the path's ending."""

    def write(path: Path, brightness: int = 128, size: tuple[int, int] = (SIDE, SIDE)) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(path.suffix, np.full(size, brightness, np.uint8))[1].tobytes())
        return path

    return write


@pytest.fixture(scope="session")
def onspect() -> Callable[..., Result]:
    """Return a function that runs the command line and returns its output and its exit code."""

    def run(*arguments: object, stdin: str | bytes | None = None) -> Result:
        return CliRunner().invoke(main, [str(argument) for argument in arguments], input=stdin)

    return run
