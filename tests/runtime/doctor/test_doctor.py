"""`onspect doctor` finds a fault, names it and gives the remedy."""

from __future__ import annotations

import importlib
import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from click.testing import Result

from onspect.runtime.doctor import extras, machine, packages
from onspect.runtime.doctor.check import check_model
from onspect.runtime.doctor.extras import Requirement, check_extras, parse_requirements
from onspect.runtime.doctor.machine import check_clock, check_disk, check_gentl
from onspect.runtime.doctor.packages import (
    check_onnxruntime,
    check_opencv,
    check_provider,
    find_missing_library,
    name_remedy,
    run_child,
)
from onspect.runtime.doctor.tiny_graph import build_tiny_graph
from onspect.runtime.extras import PURPOSES

Run = Callable[..., Result]


@pytest.mark.slow
def test_this_computer_is_checked(onspect: Run, calibrated: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """If all works the exit code is 0, each library has its line, and nothing is left in the folder."""
    monkeypatch.chdir(tmp_path)
    result = onspect("doctor", calibrated)
    assert result.exit_code == 0, result.stdout
    found = {line[5:26].strip(): line[:4].strip() for line in result.stdout.splitlines()}
    for name in ("python", "opencv", "onnxruntime", "provider cpu", "extra cpu", "processor", "model part.onnx"):
        assert found[name] == "ok"
    assert all(len(line) <= 80 for line in result.stdout.splitlines())
    assert [path.name for path in tmp_path.iterdir()] == [calibrated.name]


@pytest.mark.slow
def test_broken_model_is_a_failure(onspect: Run, tmp_path: Path) -> None:
    """A model file that cannot be used gives exit code 1 and its reason, as JSON too."""
    (tmp_path / "part.onnx").write_bytes(b"\x08\x07broken")
    result = onspect("doctor", tmp_path / "part.onnx", "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert not found["works"]
    (model,) = [finding for finding in found["findings"] if finding["status"] == "broken"]
    assert model["name"] == "model part.onnx"
    assert "Error: needed, but broken: model part.onnx" in result.stderr


def test_model_without_threshold_is_warned_of(uncalibrated: Path, calibrated: Path) -> None:
    """A file that loads and has no threshold names the command; one that has judges a frame."""
    finding = check_model(uncalibrated)
    assert (finding.status, "onspect calibrate" in finding.remedy) == ("warning", True)
    assert "a grey frame is judged" in check_model(calibrated).detail
    assert check_model(calibrated).status == "ok"


def test_tiny_graph_is_valid() -> None:
    """The graph that is written by hand passes ONNX's own check."""
    model = onnx.load_from_string(build_tiny_graph())
    onnx.checker.check_model(model, full_check=True)


@pytest.mark.slow
def test_provider_that_does_not_start_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider that this build lacks falls back; it is needed only where there is a GPU."""
    assert check_provider("cpu", "CPUExecutionProvider").status == "ok"
    monkeypatch.setattr(packages, "has_nvidia_gpu", lambda: False)
    finding = check_provider("cuda", "CUDAExecutionProvider")
    assert (finding.status, "no NVIDIA GPU" in finding.detail) == ("absent", True)
    monkeypatch.setattr(packages, "has_nvidia_gpu", lambda: True)
    assert check_provider("cuda", "CUDAExecutionProvider").status == "broken"
    assert check_provider("tensorrt", "TensorrtExecutionProvider").status == "warning"


def test_unused_gpu_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU beside an onnxruntime without CUDA is pointed out, and is not a failure."""
    monkeypatch.setattr(packages, "has_nvidia_gpu", lambda: True)
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    found = {finding.name: finding for finding in check_onnxruntime()}
    assert found["provider cuda"].status == "absent"
    assert "onspect[gpu]" in found["provider cuda"].remedy


def test_missing_cuda_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library in onnxruntime's message is named with where it comes from."""
    log = (
        "[E:onnxruntime:Default, provider_bridge_ort.cc:2195 TryGetProviderInfo_CUDA] Failed to load library "
        "libonnxruntime_providers_cuda.so with error: libcudnn.so.9: cannot open shared object file: No such file"
    )
    monkeypatch.setattr(packages, "run_child", lambda *_: (True, "CPUExecutionProvider", log))
    monkeypatch.setattr(packages, "has_nvidia_gpu", lambda: True)
    finding = check_provider("cuda", "CUDAExecutionProvider")
    assert finding.detail == "does not start: libcudnn.so.9 is missing"
    assert "cuDNN 9" in finding.remedy


@pytest.mark.parametrize(
    ("text", "library", "words"),
    [
        ("libGL.so.1: cannot open shared object file: No such file or directory", "libGL.so.1", "libgl1"),
        ("libgthread-2.0.so.0: cannot open shared object file", "libgthread-2.0.so.0", "libglib2.0-0"),
        ("libcublasLt.so.12: cannot open shared object file", "libcublasLt.so.12", "CUDA toolkit"),
        ('which depends on "cudnn64_9.dll" which is missing', "cudnn64_9.dll", ""),
        ("something else", None, ""),
    ],
)
def test_missing_library_is_read_from_a_message(text: str, library: str | None, words: str) -> None:
    """Loaders name the library; if it is known, so is its source."""
    assert find_missing_library(text) == library
    assert words in name_remedy(library)
    assert bool(words) == bool(name_remedy(library))


def refuse(name: str, error: ImportError) -> Callable[[str], Any]:
    """Return an import function that fails for one module."""

    def load(wanted: str) -> Any:
        if wanted == name:
            raise error
        return importlib.__import__(wanted)

    return load


def test_opencv_without_libgl_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The build with windows on a box without a desktop is broken, and the headless build is named."""
    error = ImportError("libGL.so.1: cannot open shared object file: No such file or directory")
    monkeypatch.setattr(importlib, "import_module", refuse("cv2", error))
    (finding,) = check_opencv()
    assert (finding.status, finding.detail) == ("broken", "cannot start: libGL.so.1 is missing")
    assert "opencv-python-headless" in finding.remedy


def test_remains_of_a_removed_build_are_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Removing one of two builds leaves a package without functions, which is reported as such."""
    monkeypatch.setattr(importlib, "import_module", lambda _: type("Rest", (), {}))
    (finding,) = check_opencv()
    assert (finding.status, finding.detail.startswith("its files are incomplete")) == ("broken", True)


def test_missing_libraries_are_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without OpenCV or onnxruntime the extra to install is named."""
    monkeypatch.setattr(importlib, "import_module", refuse("cv2", ModuleNotFoundError("No module named 'cv2'")))
    assert [(item.status, item.remedy) for item in check_opencv()] == [
        ("broken", "pip install 'onspect[cpu]' (or gpu)")
    ]
    monkeypatch.setattr(importlib, "import_module", refuse("onnxruntime", ModuleNotFoundError("no")))
    assert [item.status for item in check_onnxruntime()] == ["broken"]


def test_two_builds_are_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two builds of OpenCV write over each other; both are named."""
    monkeypatch.setattr(packages, "list_builds", lambda _: ["opencv-python 4.12.0", "opencv-python-headless 4.13.0"])
    two, opencv = check_opencv()
    assert (two.status, opencv.status) == ("warning", "ok")
    assert two.remedy.startswith("pip uninstall opencv-python opencv-python-headless, then")


def test_crash_of_a_check_is_an_answer() -> None:
    """A child that fails says so in one line and takes nothing with it."""
    works, words, _ = run_child("gentl", "/nowhere/none.cti")
    assert not works
    assert "none.cti" in words


def test_virtual_cameras_of_a_producer_are_listed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A registered producer is loaded and its cameras named; a file that is not a producer gives a warning."""
    genicam = pytest.importorskip("genicam", reason="the extra 'genicam' is not installed")
    monkeypatch.setenv("GENICAM_GENTL64_PATH", str(tmp_path))
    assert [finding.status for finding in check_gentl()] == ["absent"]
    (tmp_path / "broken.cti").write_bytes(b"no library")
    (tmp_path / "viky.cti").symlink_to(Path(genicam.__file__).with_name("viky.cti"))
    broken, viky = check_gentl()
    assert (broken.name, broken.status) == ("gentl broken.cti", "warning")
    assert "cannot be loaded" in broken.detail
    assert viky.status == "ok"
    assert viky.detail.count("free") == 3


def test_every_extra_has_its_purpose() -> None:
    """The list of extras is that of the package, without dev."""
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(PURPOSES) == set(project["optional-dependencies"]) - {"dev"}


def test_requirements_are_read() -> None:
    """Extras of packages, versions and other markers are understood; what belongs to no extra is left out."""
    lines = ["numpy>=1.26", 'ray[data]>=2.50 ; extra == "ray"', "six; extra == 'web'", 'a>=1.2,<3; extra == "x-y"']
    assert parse_requirements(lines) == [
        Requirement("ray", "2.50", "ray"), Requirement("six", "", "web"), Requirement("a", "1.2", "x-y"),
    ]  # fmt: skip


def test_extras_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Installed, missing, partial and outdated extras are distinguished; gpu's OpenCV may be the headless one."""
    versions = {"onnxruntime": "1.19.2", "opencv-python-headless": "4.13.0.90", "av": "14.0", "starlette": "0.46"}
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [f'{line}; extra == "{name}"' for name, all_ in project["optional-dependencies"].items() for line in all_]
    monkeypatch.setattr(extras.importlib.metadata, "requires", lambda _: lines)
    monkeypatch.setattr(extras, "find_version", versions.get)
    found = {finding.name.removeprefix("extra "): finding for finding in check_extras()}
    assert found["video"].status == "ok"
    assert (found["cpu"].status, found["cpu"].detail.endswith("onnxruntime is older than 1.20")) == ("warning", True)
    assert (found["web"].status, found["web"].detail) == ("absent", "--dashboard: uvicorn not installed")
    assert (found["mqtt"].status, found["mqtt"].remedy) == ("absent", "pip install 'onspect[mqtt]'")


def test_disk_is_measured(tmp_path: Path) -> None:
    """A folder that can be written has its speed, one that is not there is broken; nothing stays."""
    assert "MB/s" in check_disk(tmp_path).detail
    assert list(tmp_path.iterdir()) == []
    assert check_disk(tmp_path / "none").status == "broken"


def test_full_disk_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk with hardly any space left is broken, one with little is warned of."""
    usage = type("Usage", (), {"free": 1e6})
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: usage)
    assert check_disk(tmp_path).status == "broken"
    usage.free = 5e8
    assert check_disk(tmp_path).status == "warning"


def test_clock_that_was_never_set_is_broken() -> None:
    """A clock at 1970 is reported."""
    finding = check_clock(now=100.0)
    assert (finding.status, finding.detail.startswith("1970-01-01")) == ("broken", True)
    assert check_clock().status in ("ok", "warning")
