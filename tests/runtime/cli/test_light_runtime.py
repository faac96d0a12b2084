from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import onspect.runtime
from onspect.runtime import errors

from ..teaching.conftest import base_file, parts

__all__ = ["base_file", "parts"]

HEAVY = ["torch", "sklearn", "onnx", "onnxscript", "matplotlib", "lightning_fabric", "safetensors", "scipy", "jinja2"]
HEAVY += ["ray", "pyarrow", "fsspec", "openvino"]


MISSING = (
    "import sys\n"
    "class Missing:\n"
    "    def find_spec(self, name, path=None, target=None):\n"
    "        if name.partition('.')[0] in sys.argv[1].split(','):\n"
    "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
    "sys.meta_path.insert(0, Missing())\n"
)
"""Beginning of a script for which the packages of its first argument are missing."""


def run(script: str, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a script in a fresh interpreter."""
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


def test_runtime_imports_nothing_heavy() -> None:
    """Every module of the runtime, and the whole command line, load without torch, scikit-learn, onnx and the like."""
    script = (
        "import importlib, pkgutil, sys, onspect.runtime as runtime\n"
        "found = [m.name for m in pkgutil.walk_packages(runtime.__path__, 'onspect.runtime.')]\n"
        "names = [name for name in found if not name.endswith('__main__')]\n"
        "[importlib.import_module(name) for name in names]\n"
        "assert 'onspect.runtime.sources.video' in names and 'onspect.runtime.inspection.inspector' in names\n"
        "print(*sorted(set(sys.argv[1:]) & set(sys.modules)))"
    )
    done = run(script, *HEAVY)
    assert (done.stderr, done.stdout.strip()) == ("", "")


@pytest.mark.skipif(sys.platform != "linux", reason="looks at the threads and files of Linux")
@pytest.mark.parametrize(
    "module",
    ["onspect.runtime.model.session", "onspect.export", "onspect.runtime"],
)
def test_onnxruntime_reports_to_nobody(module: str, tmp_path: Path) -> None:
    """For every part that is imported first, onnxruntime starts no sender and keeps no database of events."""
    pytest.importorskip("onnxruntime")
    script = f"import {module}, onnxruntime, os; print(os.listdir(os.environ['HOME']))"
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "MPLCONFIGDIR": str(tmp_path.parent)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, env=environment)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


def test_help_loads_no_engine() -> None:
    """`onspect --help` loads neither OpenCV nor onnxruntime nor numpy, so that it starts at once."""
    script = (
        "import sys\nfrom onspect.runtime.cli import main\n"
        "main(['--help'], standalone_mode=False)\n"
        "print(sorted({'cv2', 'numpy', 'onnxruntime', 'torch'} & set(sys.modules)))"
    )
    assert run(script).stdout.endswith("[]\n")


def test_one_image_loads_what_it_needs(calibrated: Path, tmp_path: Path, write_image: Callable[..., Path]) -> None:
    """`score` and `run` load no module of what the model and the line do not have."""
    folder = write_image(tmp_path / "parts" / "part.png").parent
    script = (
        "import sys\nfrom onspect.runtime.cli import main\n"
        "main(['score', *sys.argv[1:], '-o', 'verdicts.jsonl'], standalone_mode=False)\n"
        "main(['run', *sys.argv[1:], '--sink', 'jsonl:verdicts.jsonl'], standalone_mode=False)\n"
        "rooms = ('presence', 'signals', 'ray', 'dashboard', 'images.align', 'images.region', 'model.openvino')\n"
        "print([name for name in sys.modules if name.startswith(tuple(f'onspect.runtime.{room}' for room in rooms))])"
    )
    done = run(script, str(calibrated), str(folder), cwd=tmp_path)
    assert done.stdout == "[]\n", done.stderr
    assert len((tmp_path / "verdicts.jsonl").read_text().splitlines()) == 2


def test_every_error_is_public() -> None:
    """Every error that onspect raises on purpose is a name of the package, so that callers can catch it."""
    kinds = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert kinds <= set(onspect.runtime.__all__)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("package", "arguments", "extra"),
    [
        ("torch", ["train", "x", "-o", "y"], "train"),
        ("onnxruntime", ["score", "x", "y"], "cpu"),
        ("openvino", ["score", "part.onnx", "y", "--provider", "openvino"], "openvino"),
        ("ray", ["score", "x", "s3://y", "-o", "z", "--engine", "ray"], "ray"),
    ],
)
def test_missing_package_names_the_extra(calibrated: Path, package: str, arguments: list[str], extra: str) -> None:
    """If a package is missing, the command that needs it fails with the line that installs it."""
    script = MISSING + "from onspect.runtime.cli import main\nmain(sys.argv[2:], prog_name='onspect')"
    done = run(script, package, *(str(calibrated) if name == calibrated.name else name for name in arguments))
    assert done.returncode == 1
    assert done.stderr == f"Error: 'onspect {arguments[0]}' needs {package}: pip install 'onspect[{extra}]'\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("package", "sink", "extra"),
    [
        ("paho", "mqtt://host/line", "mqtt"),
        ("pymodbus", "modbus://host", "modbus"),
        ("asyncua", "opcua://127.0.0.1", "opcua"),
        ("prometheus_client", "prometheus://127.0.0.1", "prometheus"),
    ],
)
def test_missing_package_of_a_sink_is_known(package: str, sink: str, extra: str) -> None:
    """If a sink's package is missing, opening the sink names it, and the command line knows the extra it is in."""
    script = (
        MISSING + "from onspect.runtime.extras import EXTRAS\n"
        "from onspect.runtime.sinks import open_sink\n"
        "try:\n"
        "    open_sink(sys.argv[2], append=True)\n"
        "except ImportError as error:\n"
        "    print(EXTRAS[error.name.partition('.')[0]])"
    )
    done = run(script, package, sink)
    assert (done.stderr, done.stdout.strip()) == ("", extra)


@pytest.mark.slow
def test_check_of_a_line_lists_each_missing_package(tmp_path: Path, calibrated: Path) -> None:
    """A package that is not installed fails what needs it; the other parts of the line are checked too."""
    (tmp_path / "line.toml").write_text(
        f"[model]\nfile = '{calibrated}'\n[[source]]\naddress = '/dev/video997'\n"
        f"[[sink]]\nto = 'jsonl:{tmp_path / 'verdicts.jsonl'}'\n[[sink]]\nto = 'mqtt://127.0.0.1/line'\n"
        "[signal]\naddress = 'modbus://127.0.0.1'\n[dashboard]\nlisten = '127.0.0.1:0'\n",
        encoding="utf-8",
    )
    script = MISSING + "from onspect.runtime.cli import main\nmain(['run', '--check', sys.argv[2]])"
    done = run(script, "paho,pymodbus,starlette", str(tmp_path / "line.toml"))
    assert done.returncode == 1
    rows = [re.split(r" (ok|FAILS) +", line) for line in done.stdout.splitlines()]
    found = {name.strip(): (state, detail) for name, state, detail in rows}
    assert {name: state for name, (state, _) in found.items()} == {
        "model": "ok",
        "source 1": "FAILS",
        "sink 1": "ok",
        "sink 2": "FAILS",
        "signal": "FAILS",
        "dashboard": "FAILS",
    }
    for name, package, extra in (("sink 2", "paho", "mqtt"), ("signal", "pymodbus", "modbus")):
        assert f"it needs {package}: pip install 'onspect[{extra}]'" in found[name][1]
    assert found["dashboard"][1] == "it needs starlette: pip install 'onspect[web]'"
    assert "4 checks of the line failed" in done.stderr


@pytest.mark.slow
def test_teaching_needs_no_torch(tmp_path: Path, base_file: Path, parts: Path) -> None:
    """With a base file, `teach`, `--add-to`, `--undo` and `score` run where torch, onnx and the like are missing."""
    script = (
        "import sys\n"
        "heavy = set(sys.argv[4].split(','))\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in heavy:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        "from onspect.runtime.cli import main\n"
        "base, parts, model = sys.argv[1:4]\n"
        "run = lambda *words: main(list(words), standalone_mode=False)\n"
        "run('teach', parts, '--base', base, '-o', model, '--copies', 'none')\n"
        "run('teach', parts + '/test/good', '--add-to', model)\n"
        "run('teach', '--undo', model)\n"
        "run('score', model, parts + '/test/good')\n"
        "assert not heavy & set(sys.modules)"
    )
    done = run(script, str(base_file), str(parts), str(tmp_path / "part.onnx"), ",".join(HEAVY))
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 12


def test_teaching_without_a_base_file_names_the_extra(
    tmp_path: Path, parts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without torch and without --base, the command says what to install, unless the backbone has been kept."""
    monkeypatch.setenv("ONSPECT_CACHE", str(tmp_path))
    script = (
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] == 'torch':\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        "from onspect.runtime.cli import main\n"
        "main(sys.argv[1:], prog_name='onspect')"
    )
    done = run(script, "teach", str(parts), "-o", str(tmp_path / "part.onnx"))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "Error: 'onspect teach' needs torch: pip install 'onspect[train]'"
