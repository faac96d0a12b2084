"""Checks of Python, OpenCV and onnxruntime with its providers."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from onspect.runtime.doctor.findings import Finding
from onspect.runtime.model.providers import ONNXRUNTIME

_OLDEST_PYTHON = (3, 11)
_CHILD_SECONDS = 60.0
_OPENCV_BUILDS = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)
_ONNXRUNTIME_BUILDS = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml")
_PROVIDERS = {name: providers[0] for name, providers in ONNXRUNTIME.items()}
_FRESH = "pip install 'onspect[cpu]' into a fresh environment"
_MISSING = re.compile(r"(lib[\w+.-]+\.so[.\d]*): cannot open shared object file|which depends on \"([\w.-]+\.dll)\"")
_LIBRARY_SOURCES = (
    ("libGL", "install libgl1, or the build without windows: pip install opencv-python-headless"),
    ("libgthread", "install libglib2.0-0, or the build without windows: pip install opencv-python-headless"),
    ("libcudnn", "install cuDNN 9: pip install nvidia-cudnn-cu12 (or -cu13), as the onnxruntime build needs"),
    ("libnvinfer", "install TensorRT, or use --provider cuda"),
    ("libcu", "install the CUDA toolkit whose version the library's name ends in"),
)


def check_python() -> Finding:
    """Check the version of Python.

    Returns
    -------
    Finding
        The finding.
    """
    text = (
        f"{platform.python_version()} ({platform.python_implementation()}) on {platform.system()} {platform.machine()}"
    )
    if sys.version_info[:2] < _OLDEST_PYTHON:
        return Finding("python", "broken", text, "install Python 3.11 or later")
    place = "in a virtual environment" if sys.prefix != sys.base_prefix else "not in a virtual environment"
    return Finding("python", "ok", f"{text}, {place}")


def check_opencv() -> Iterator[Finding]:
    """Check that OpenCV loads, keeps 16 bits, and is installed once.

    Returns
    -------
    Iterator[Finding]
        The findings.
    """
    builds = list_builds(_OPENCV_BUILDS)
    if len(builds) > 1:
        yield report_two_builds("opencv builds", builds)
    try:
        cv2: Any = importlib.import_module("cv2")
        import numpy as np

        frame = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
        kept = cv2.imdecode(cv2.imencode(".png", frame)[1], cv2.IMREAD_UNCHANGED)
        facts = cv2.getBuildInformation()
    except (ImportError, AttributeError) as error:  # AttributeError: one build has removed files of another
        yield describe_import_failure("opencv", error)
        return
    if not np.array_equal(frame, kept):
        yield Finding("opencv", "broken", "a 16-bit PNG file comes back changed", _FRESH)
        return
    video = "yes" if re.search(r"FFMPEG:\s+YES", facts) else "no"
    yield Finding("opencv", "ok", f"{cv2.__version__} ({', '.join(builds) or 'own build'}), streams by FFmpeg: {video}")


def check_onnxruntime() -> Iterator[Finding]:
    """Check that onnxruntime loads and is installed once, and which of its providers start.

    Returns
    -------
    Iterator[Finding]
        The findings.
    """
    builds = list_builds(_ONNXRUNTIME_BUILDS)
    if len(builds) > 1:
        yield report_two_builds("onnxruntime builds", builds)
    try:
        onnxruntime: Any = importlib.import_module("onnxruntime")
        offered = onnxruntime.get_available_providers()
    except (ImportError, AttributeError) as error:
        yield describe_import_failure("onnxruntime", error)
        return
    yield Finding("onnxruntime", "ok", f"{onnxruntime.__version__} ({', '.join(builds) or 'own build'})")
    if has_nvidia_gpu() and _PROVIDERS["cuda"] not in offered:
        words = "there is an NVIDIA GPU, and this onnxruntime is built for the processor only"
        remedy = "to use the GPU: pip install 'onspect[gpu]' into an environment without the extra cpu"
        yield Finding("provider cuda", "absent", words, remedy)
    for name, provider in _PROVIDERS.items():
        if provider in offered:
            yield check_provider(name, provider)


def check_provider(name: str, provider: str) -> Finding:
    """Start a session on a provider of onnxruntime, in its own process.

    Parameters
    ----------
    name
        Name of the provider in Onspect, such as ``cuda``.
    provider
        Name of the provider in onnxruntime.

    Returns
    -------
    Finding
        The finding.
    """
    started, words, log = run_child("provider", provider)
    title = f"provider {name}"
    if started and words == provider:
        return Finding(title, "ok", "a session starts and computes")
    missing = find_missing_library(log + words)
    reason = f"{missing} is missing" if missing else words if not started else "the session falls back to the processor"
    needed = name == "cpu" or (name == "cuda" and has_nvidia_gpu())
    if not needed and not has_nvidia_gpu():
        return Finding(title, "absent", f"does not start ({reason}), and there is no NVIDIA GPU")
    remedy = name_remedy(missing) or "reinstall onnxruntime in a fresh environment"
    return Finding(title, "broken" if needed else "warning", f"does not start: {reason}", remedy)


def check_openvino() -> Finding:
    """Compile a graph with OpenVINO, if it is installed.

    Returns
    -------
    Finding
        The finding.
    """
    if not list_builds(("openvino",)):
        return Finding("provider openvino", "absent", "not installed", "pip install 'onspect[openvino]'")
    started, words, _ = run_child("openvino", "")
    if started:
        return Finding("provider openvino", "ok", f"{words}: a graph compiles and computes")
    return Finding("provider openvino", "warning", f"does not start: {words}", "pip install -U 'onspect[openvino]'")


def list_builds(packages: tuple[str, ...]) -> list[str]:
    """Return the installed packages of a list.

    Parameters
    ----------
    packages
        Names of the packages.

    Returns
    -------
    list[str]
        Name and version of each installed one.
    """
    versions = ((package, find_version(package)) for package in packages)
    return [f"{package} {version}" for package, version in versions if version is not None]


def find_version(package: str) -> str | None:
    """Return the version of an installed package.

    Parameters
    ----------
    package
        Its name.

    Returns
    -------
    str | None
        The version; None if it is not installed.
    """
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def report_two_builds(name: str, builds: list[str]) -> Finding:
    """Report several builds of one library.

    Parameters
    ----------
    name
        Name of the check.
    builds
        Name and version of each build.

    Returns
    -------
    Finding
        The finding.
    """
    packages = [build.partition(" ")[0] for build in builds]
    words = f"{' and '.join(builds)} are installed, and write over each other's files"
    return Finding(name, "warning", words, f"pip uninstall {' '.join(packages)}, then install the one that is wanted")


def describe_import_failure(name: str, error: Exception) -> Finding:
    """Report a needed library that cannot be loaded.

    Parameters
    ----------
    name
        Name of the check.
    error
        The error of the import.

    Returns
    -------
    Finding
        The finding.
    """
    if isinstance(error, ModuleNotFoundError):
        return Finding(name, "broken", "not installed", "pip install 'onspect[cpu]' (or gpu)")
    if isinstance(error, AttributeError):
        detail = f"its files are incomplete, for example because another build was removed ({error})"
        return Finding(name, "broken", detail, _FRESH)
    missing = find_missing_library(str(error))
    detail = f"cannot start: {missing} is missing" if missing else f"cannot start: {error}"
    return Finding(
        name, "broken", detail, name_remedy(missing) or "pip install 'onspect[cpu]' into a fresh environment"
    )


def find_missing_library(text: str) -> str | None:
    """Return the missing shared library that a message of a loader or of onnxruntime names.

    Parameters
    ----------
    text
        The message.

    Returns
    -------
    str | None
        File name of the library; None if the message names none.

    Examples
    --------
    >>> find_missing_library("ImportError: libGL.so.1: cannot open shared object file: No such file or directory")
    'libGL.so.1'
    """
    found = _MISSING.search(text)
    return None if found is None else found[1] or found[2]


def name_remedy(library: str | None) -> str:
    """Return the remedy for a missing library.

    Parameters
    ----------
    library
        File name of the library; None for none.

    Returns
    -------
    str
        One sentence; empty if the library is unknown.
    """
    return next((cure for start, cure in _LIBRARY_SOURCES if (library or "").startswith(start)), "")


def has_nvidia_gpu() -> bool:
    """Return whether an NVIDIA driver is loaded, on Linux.

    Returns
    -------
    bool
        False on other systems.
    """
    return Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidia0").exists()


def run_child(kind: str, argument: str) -> tuple[bool, Any, str]:
    """Run a check of `onspect.runtime.doctor.child`.

    Parameters
    ----------
    kind
        ``provider``, ``openvino`` or ``gentl``.
    argument
        Argument of the check.

    Returns
    -------
    tuple[bool, Any, str]
        Whether it worked, its answer or error, and its stderr.
    """
    command = [sys.executable, "-P", "-m", "onspect.runtime.doctor.child", kind, argument]
    try:
        done = subprocess.run(  # noqa: S603 - our own module
            command, capture_output=True, text=True, errors="replace", timeout=_CHILD_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return False, f"no answer within {_CHILD_SECONDS:.0f} s", ""
    try:
        answer = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return False, f"the process ends with code {done.returncode}: {last}", done.stderr
    if "error" in answer:
        return False, answer["error"], done.stderr
    return True, answer["answer"], done.stderr
