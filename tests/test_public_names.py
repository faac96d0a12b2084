"""The public face of each part: complete, lazy, and the same for Python and for type checkers."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from onspect.runtime.cli import main

PAGE = Path(__file__).parents[1] / "docs" / "python-reference.md"
PARTS = [
    "onspect.runtime",
    "onspect.calibration",
    "onspect.training",
    "onspect.export",
    "onspect.compare",
    "onspect.demo",
]

WORK = {
    "demo": "onspect.demo.draw_dataset",
    "capture": "onspect.runtime.record",
    "split": "onspect.runtime.write_split",
    "roi": "onspect.runtime.parse_region",
    "parts": "onspect.runtime.cut_parts",
    "teach": "onspect.runtime.teach",
    "backbone": "onspect.training.make_base",
    "train": "onspect.training.train",
    "export": "onspect.export.export",
    "calibrate": "onspect.calibration.calibrate",
    "threshold": "onspect.calibration.move_threshold",
    "evaluate": "onspect.calibration.evaluate",
    "compare": "onspect.compare.compare",
    "score": "onspect.runtime.Inspector",
    "run": "onspect.runtime.Line",
    "cameras": "onspect.runtime.find_local_cameras",
    "info": "onspect.runtime.read_model_info",
    "bench": "onspect.runtime.run_bench",
    "doctor": "onspect.runtime.check_computer",
    "drift": "onspect.runtime.compare_log",
    "recalibrate": "onspect.runtime.recalibrate",
    "labels": "onspect.runtime.export_labels",
    "fleet": "onspect.runtime.open_fleet",
}
"""Each command with the public name that does its work."""

INSIDE = {"onspect.runtime.cli", "onspect.training.autoencoder.losses", "onspect.training.autoencoder.networks"}
"""Modules that a page describes and that are not public: the program, and the networks of docs/networks.md."""


@pytest.mark.parametrize("part", PARTS)
def test_type_checkers_see_the_same_names(part: str) -> None:
    """The imports for type checkers are those of the table, from the same modules."""
    module = importlib.import_module(part)
    (block,) = [node for node in ast.parse(inspect.getsource(module)).body if isinstance(node, ast.If)]
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    seen = {(alias.name, alias.asname, node.module) for node in imports for alias in node.names}
    homes = {(name, name, f"{part}.{home}") for home, names in module._HOMES.items() for name in names.split()}
    assert seen == homes


@pytest.mark.parametrize("part", PARTS)
def test_every_public_name_loads_and_is_documented(part: str) -> None:
    """Each public name is in dir(), and the object has its own docstring; constants are tuples and tables."""
    module = importlib.import_module(part)
    assert set(module.__all__) <= set(dir(module))
    assert module.__all__ == sorted(module.__all__)
    for name in module.__all__:
        value = getattr(module, name)
        assert isinstance(value, tuple | Mapping) or (value.__name__ == name and value.__doc__), name


@pytest.mark.parametrize("part", PARTS)
def test_importing_a_part_loads_no_engine(part: str) -> None:
    """Importing a part loads neither numpy nor OpenCV nor onnxruntime: a name does, when it is used."""
    engines = {"click", "cv2", "numpy", "onnx", "onnxruntime", "sklearn", "torch"}
    script = f"import {part}, sys; print(sorted({engines} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("part", PARTS)
def test_unknown_name_is_an_attribute_error(part: str) -> None:
    """A name that a part does not have raises AttributeError."""
    with pytest.raises(AttributeError, match="Inspektor"):
        _ = importlib.import_module(part).Inspektor


@pytest.mark.parametrize("part", PARTS)
def test_every_public_name_is_on_the_page(part: str) -> None:
    """docs/python-reference.md names everything public."""
    text = PAGE.read_text(encoding="utf-8")
    assert [name for name in importlib.import_module(part).__all__ if f"`{name}`" not in text] == []


def test_the_page_names_nothing_else() -> None:
    """Every name in the tables of docs/python-reference.md is public in the part above it."""
    text = PAGE.read_text(encoding="utf-8").split("## Teach")[0]
    for part, rows in re.findall(r"^\| `(onspect\.\w+)` \| \|\n((?:\|.*\n)+)", text, re.MULTILINE):
        names = re.findall(r"`(\w+)`", " ".join(row.split("|")[1] for row in rows.splitlines()))
        assert set(names) <= set(importlib.import_module(part).__all__), part


def test_every_command_has_a_public_function() -> None:
    """What a command does is reachable from the face of its part."""
    assert list(main.list_commands(None)) == list(WORK)  # type: ignore[arg-type]
    for command, path in WORK.items():
        part, _, name = path.rpartition(".")
        assert name in importlib.import_module(part).__all__, command


def test_examples_use_the_faces() -> None:
    """Pages and examples import from the face of a part."""
    root = PAGE.parents[1]
    files = [
        root / "README.md",
        *root.glob("docs/*.md"),
        *root.glob("examples/**/*.py"),
        *root.glob("examples/*.ipynb"),
    ]
    found = [
        (file.name, module, names)
        for file in files
        for module, names in re.findall(
            r"from (onspect\.[\w.]+) import ([\w, ]+)", file.read_text(encoding="utf-8").replace("\\n", " ")
        )
    ]
    assert len(found) > 25
    assert [one for one in found if one[1] not in INSIDE and one[1] not in PARTS] == []
    for _, module, names in found:
        if module in PARTS:
            for name in names.replace(" ", "").split(","):
                assert name in importlib.import_module(module).__all__, (module, name)


def list_callables(part: str) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield the public functions, classes and methods of a part, each with its name."""
    module = importlib.import_module(part)
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isclass(value) and not issubclass(value, Exception):
            methods = vars(value).items()
            yield from ((f"{name}.{key}", one) for key, one in methods if inspect.isfunction(one) and key[0] != "_")
        if callable(value) and (not inspect.isclass(value) or "__init__" in vars(value)):
            yield name, value


RECORDS = {"Dataset", "Evaluation", "Exported", "ModelFile", "Quantized", "Taught"}
"""Records that only functions make: their paths are `Path`, whatever the function took."""


@pytest.mark.parametrize("part", PARTS)
def test_paths_are_text_or_path(part: str) -> None:
    """No public function asks for a `Path` where a text would do."""
    only = [
        (name, parameter.name, str(parameter.annotation))
        for name, function in list_callables(part)
        if name.split(".")[0] not in RECORDS
        for parameter in inspect.signature(function).parameters.values()
        if re.search(r"(?<!\w)Path\b", str(parameter.annotation).partition("Callable[")[0])
        and not re.search(r"(?<!\w)str\b", re.sub(r"str \| None, ", "", str(parameter.annotation)))
    ]
    assert only == []
