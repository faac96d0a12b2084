import importlib
import sys

import pytest


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        ("decode", "images.decode", "read_image"),
        ("inspector", "inspection.inspector", "Inspector"),
        ("model_file", "model.file", "read_model_file"),
        ("verdict", "inspection.verdict", "Verdict"),
    ],
)
def test_modules_of_earlier_releases_are_found_with_a_warning(
    old: str, new: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module that programs for 0.1.0 import is still there, is the new one, and says where that is."""
    monkeypatch.delitem(sys.modules, f"onspect.runtime.{old}", raising=False)
    with pytest.warns(DeprecationWarning, match=f"onspect.runtime.{old} has moved to onspect.runtime.{new}"):
        module = importlib.import_module(f"onspect.runtime.{old}")
    assert getattr(module, name) is getattr(importlib.import_module(f"onspect.runtime.{new}"), name)
