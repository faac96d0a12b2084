"""The public face of each part: complete, lazy, and the same for Python and for type checkers."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "python-reference.md"
PARTS = ["onspect.runtime", "onspect.calibration", "onspect.training", "onspect.export", "onspect.compare"]


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
