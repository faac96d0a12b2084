"""Every part's public face: its names are complete, are there, and cost nothing until they are used."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from onspect.export import export, quantize
from onspect.runtime import DatasetError
from onspect.training import Devices, TrainOptions, load_trained, resume, train

PARTS = ("onspect.training", "onspect.export", "onspect.compare")


@pytest.mark.parametrize("part", PARTS)
def test_every_public_name_is_there(part: str) -> None:
    """Each name of __all__ is listed by dir(), sorted, loaded from where it is, and documented."""
    module = importlib.import_module(part)
    assert module.__doc__
    names = list(module.__all__)
    assert len(set(names)) == len(names)
    assert set(names) <= set(dir(module))
    for name in names:
        thing = getattr(module, name)
        assert not callable(thing) or thing.__doc__
    with pytest.raises(AttributeError, match=f"module '{part}' has no attribute 'nothing'"):
        module.nothing  # noqa: B018


def test_importing_the_faces_loads_no_torch() -> None:
    """`import onspect.training` and the others load neither torch nor onnx nor click; using a name does."""
    code = (
        f"import sys; import {', '.join(PARTS)}; print(sorted({{'torch', 'onnx', 'click', 'cv2'}} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("part", PARTS)
def test_only_the_commands_know_click(part: str) -> None:
    """Library code imports neither click nor the commands' helpers; progress is a callback that is handed in."""
    folder = Path(importlib.import_module(part).__file__ or "").parent
    modules = [path for path in folder.rglob("*.py") if path.name not in ("commands.py", "backbone_command.py")]
    assert modules
    forbidden = re.compile(r"^\s*(import|from) (click|onspect\.runtime\.cli)\b", re.MULTILINE)
    assert [path for path in modules if forbidden.search(path.read_text(encoding="utf-8"))] == []


def test_paths_may_be_text(tmp_path: Path) -> None:
    """From a folder to a model file by the public names, with every path as text."""
    (tmp_path / "good").mkdir()
    for seed in range(8):
        image = np.random.default_rng(seed).integers(0, 255, (28, 28), np.uint8)
        cv2.imwrite(str(tmp_path / "good" / f"{seed}.png"), image)
    run, model, mask = (str(tmp_path / name) for name in ("run", "part.onnx", "mask.png"))
    cv2.imwrite(mask, np.full((28, 28), 255, np.uint8) * (np.arange(28) < 20).astype(np.uint8))
    devices = Devices(accelerator="cpu")
    train(str(tmp_path / "good"), run, TrainOptions(epochs=1), devices=devices)
    assert resume(run, devices=devices).reason == "finished"
    assert load_trained(run).record.config.preset == "paper"
    assert export(run, model, score="mse", mask=mask).info.score.name == "mse"
    with pytest.raises(DatasetError):
        quantize(model, str(tmp_path / "small.onnx"), "fp16", str(tmp_path / "parts"))
