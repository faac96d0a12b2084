"""The models of a line: recipes by name, exchanged between two parts, and renewed where their files change."""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onspect.runtime.errors import ChoiceError, ModelFileError
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.line.frame_check import Health, Limits, limits_for
from onspect.runtime.line.memory import lay_apart

_LOG = logging.getLogger("onspect")


@dataclass(frozen=True)
class Model:
    """A loaded model with the limits that frames must keep for it; limits None where frames are not checked."""

    inspector: Inspector
    limits: Limits | None


class Models:
    """What a line judges with.

    paths: a model file for each recipe; a line without recipes has one under the name None. active: the recipe to
    begin with. open_inspector loads a file. Every model is loaded and tried at the start, so that a recipe is there at
    once when it is called for. health: what frames must be to be judged; None judges every frame that can be read, as
    of files that somebody chose. Raises ModelFileError where a model cannot be used.

    swap, choose, set_threshold and watch may be called from any thread; they take effect at `apply`.
    """

    def __init__(
        self,
        paths: Mapping[str | None, Path],
        active: str | None,
        open_inspector: Callable[[Path], Inspector],
        health: Health | None = None,
    ) -> None:
        self._open_inspector = open_inspector
        self.health = health
        self._lock = threading.Lock()
        self.loads = 0
        """How many model files were read, also those that could not be used."""
        self._paths = dict(paths)
        self._signatures = {name: _sign(path) for name, path in paths.items()}
        self._models = {name: self._load(path) for name, path in paths.items()}
        self._pending: dict[str | None, Model] = {}
        self._next: str | None = active
        self.active: str | None = active
        self.swaps = 0
        self.message = ""

    @property
    def names(self) -> list[str | None]:
        """The recipes; None alone where there are none."""
        return list(self._models)

    @property
    def current(self) -> Model:
        """The model of the active recipe."""
        return self._models[self.active]

    def find(self, recipe: str | None) -> Model | None:
        """Return the model of a recipe, of the active one for None, or None where there is no such recipe."""
        return self.current if recipe is None else self._models.get(recipe)

    @property
    def path(self) -> Path:
        """The model file of the recipe that the next part is judged with."""
        with self._lock:
            return self._paths[self._next]

    def swap(self, path: Path | str) -> None:
        """Load another model file for the active recipe; raises ModelFileError, and changes nothing, for a bad one."""
        path = Path(path)
        signature = _sign(path)
        try:
            model = self._load(path)
        except ModelFileError as error:
            self._report(f"{error}; going on with {self.current.inspector.label}")
            raise
        with self._lock:
            self._paths[self._next], self._signatures[self._next] = path, signature
            self._pending[self._next] = model

    def choose(self, recipe: str) -> None:
        """Judge with a recipe's model; raises ChoiceError where there is no such recipe."""
        if recipe not in self._models:
            raise ChoiceError(f"there is no recipe {recipe!r}; the configuration has {self._describe_recipes()}")
        with self._lock:
            self._next = recipe

    def set_threshold(self, score: float) -> None:
        """Move the active model's cut, until its file changes; raises ChoiceError where it cannot lie there."""
        with self._lock:
            name = self._next
            model = self._pending.get(name, self._models[name])
            old = model.inspector.threshold
            moved = score if model.inspector.info.score.is_peak else old.map
            if not np.isfinite(score):
                raise ChoiceError(f"the threshold is {score}; give a finite score")
            try:
                threshold = dataclasses.replace(old, score=float(score), map=float(moved))
            except ValueError as error:
                raise ChoiceError(f"the threshold cannot be {score}: {error}") from error
            self._pending[name] = dataclasses.replace(model, inspector=model.inspector.with_threshold(threshold))
        self._report(f"the threshold was moved from {old.score:.6g} to {score:.6g}")

    def watch(self, *, always: bool = False) -> None:
        """Load the model files that have changed since they were read, or all; a bad one is reported and left out."""
        for name, path in list(self._paths.items()):
            signature = _sign(path)
            if signature is None or (signature == self._signatures[name] and not always):
                continue
            self._signatures[name] = signature
            try:
                model = self._load(path)
            except ModelFileError as error:
                self._report(f"{error}; going on with {self._models[name].inspector.label}")
                continue
            with self._lock:
                self._pending[name] = model

    def apply(self) -> None:
        """Take up what is pending; called between two parts."""
        if not self._pending and self._next == self.active:
            return
        with self._lock:
            before = self.current.inspector
            self.swaps += sum(
                model.inspector.label != self._models[name].inspector.label for name, model in self._pending.items()
            )
            self._models |= self._pending
            self._pending = {}
            self.active = self._next
            after = self.current.inspector
        if before.label != after.label:
            self._report(f"judging with {after.label} now, before with {before.label}")

    def _load(self, path: Path) -> Model:
        self.loads += 1
        with lay_apart():
            inspector = self._open_inspector(path)
            _ = inspector.threshold
            recipe = inspector.info.preprocess
            try:
                inspector.infer(np.full((1, recipe.height, recipe.width, recipe.channels), 128, np.uint8))
            except Exception as error:  # onnxruntime's errors share no base class
                raise ModelFileError(f"{str(path)!r} loads, but cannot judge a picture: {error}") from error
        limits = None if self.health is None else limits_for(self.health, inspector.info.appearance)
        return Model(inspector, limits)

    def _report(self, message: str) -> None:
        self.message = message
        _LOG.warning("%s", message)

    def _describe_recipes(self) -> str:
        return ", ".join(repr(name) for name in self._models if name is not None) or "none"


def _sign(path: Path) -> tuple[int, int, int] | None:
    """Return by what a changed file is known, None where it cannot be seen just now."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
