"""Models of a line: recipes by name, replaced between two parts, and read again when their files change."""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onspect.runtime.errors import ChoiceError, ModelFileError
from onspect.runtime.explain import explaining
from onspect.runtime.fingerprints import sign_file
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.line.frame_check import Health, Limits, limits_for
from onspect.runtime.line.memory import lay_apart
from onspect.runtime.status import ThresholdMove

_LOG = logging.getLogger("onspect")


@dataclass(frozen=True)
class Model:
    """A loaded model."""

    inspector: Inspector
    """The model."""
    limits: Limits | None
    """Limits that frames must satisfy; None if frames are not checked."""


_FURTHEST = 10.0
"""Largest factor between a moved threshold and that of the model file, in both directions."""


class Models:
    """The models that a line judges with.

    Every model is loaded and tried at the start, so each recipe is ready at once. `swap`, `choose`, `set_threshold`,
    `undo_threshold` and `watch` may be called from any thread; they take effect at `apply`.

    Parameters
    ----------
    paths
        Model file of each recipe; a line without recipes has one under the name None.
    active
        The recipe at the start.
    open_inspector
        Loads a file.
    health
        Checks of the frames; None to judge every frame that can be read.

    Raises
    ------
    ModelFileError
        If a model cannot be used.
    """

    def __init__(
        self,
        paths: Mapping[str | None, Path | str],
        active: str | None,
        open_inspector: Callable[[Path], Inspector],
        health: Health | None = None,
    ) -> None:
        self._open_inspector = open_inspector
        self.health = health
        self._lock = threading.Lock()
        self.loads = 0
        """Number of model files that were read, including bad ones."""
        self._paths = {name: Path(path) for name, path in paths.items()}
        self._signatures = {name: sign_file(path) for name, path in self._paths.items()}
        self._models = {name: self._load(path) for name, path in self._paths.items()}
        self._pending: dict[str | None, Model] = {}
        self._moves: dict[str | None, list[float]] = {}
        """The moved thresholds of each recipe, the newest last."""
        self._dropped: list[str] = []
        self._next: str | None = active
        self.active: str | None = active
        self.swaps = 0
        self.message = ""

    @property
    def names(self) -> list[str | None]:
        """Names of the recipes; only None if there are no recipes."""
        return list(self._models)

    @property
    def current(self) -> Model:
        """The model of the active recipe."""
        return self._models[self.active]

    def find(self, recipe: str | None) -> Model | None:
        """Return the model of a recipe.

        Parameters
        ----------
        recipe
            Name of the recipe; None for the active one.

        Returns
        -------
        Model | None
            The model, or None if there is no such recipe.
        """
        return self.current if recipe is None else self._models.get(recipe)

    @property
    def path(self) -> Path:
        """The model file of the recipe that judges the next part."""
        with self._lock:
            return self._paths[self._next]

    @property
    def moved(self) -> ThresholdMove | None:
        """The moved threshold that replaces that of the active model file; None if it was not moved."""
        moves = self._moves.get(self.active)
        if not moves:
            return None
        inspector = self.current.inspector
        return ThresholdMove(moves[-1], inspector.file_threshold.score, inspector.label)

    def swap(self, path: Path | str) -> None:
        """Load another model file for the active recipe; if it is bad, nothing changes.

        Parameters
        ----------
        path
            The model file.

        Raises
        ------
        ModelFileError
            If the file cannot be used.
        """
        path = Path(path)
        signature = sign_file(path)
        try:
            model = self._load(path, self._models[self._next])
        except ModelFileError as error:
            self._report(f"{error}; continuing with {self.current.inspector.label}")
            raise
        with self._lock:
            self._paths[self._next], self._signatures[self._next] = path, signature
            self._stage(self._next, model)

    def choose(self, recipe: str) -> None:
        """Judge with the model of a recipe.

        Parameters
        ----------
        recipe
            Name of the recipe.

        Raises
        ------
        ChoiceError
            If there is no such recipe.
        """
        if recipe not in self._models:
            recipes = ", ".join(repr(name) for name in self._models if name is not None) or "none"
            raise ChoiceError(f"there is no recipe {recipe!r}; the configuration has {recipes}")
        with self._lock:
            self._next = recipe

    def set_threshold(self, score: float) -> float:
        """Move the threshold of the active model. A model file with other content drops the move and reports it.

        Parameters
        ----------
        score
            The new threshold, a tenth to ten times that of the model file.

        Returns
        -------
        float
            The threshold before.

        Raises
        ------
        ChoiceError
            If the value is out of range.
        """
        with self._lock:
            name = self._next
            model = self._pending.get(name, self._models[name])
            old = model.inspector.threshold.score
            self._pending[name] = _move(model, score)
            self._moves.setdefault(name, []).append(float(score))
        self._report(f"the threshold was moved from {old:.6g} to {score:.6g}")
        return old

    def undo_threshold(self) -> tuple[float, float]:
        """Undo the last move of the active model's threshold.

        Returns
        -------
        tuple[float, float]
            The threshold until then, and the threshold from now on.

        Raises
        ------
        ChoiceError
            If there is no move to undo.
        """
        with self._lock:
            name = self._next
            moves = self._moves.get(name)
            if not moves:
                raise ChoiceError("the threshold is the model file's own: there is no move to undo")
            model = self._pending.get(name, self._models[name])
            old = moves.pop()
            score = moves[-1] if moves else model.inspector.file_threshold.score
            self._pending[name] = _move(model, score) if moves else _restore(model)
        self._report(f"the move of the threshold was undone: from {old:.6g} to {score:.6g}")
        return old, score

    def watch(self, *, always: bool = False) -> None:
        """Load the model files that have changed since they were read; a bad file is reported and its old model stays.

        Parameters
        ----------
        always
            Whether all files are read, changed or not.
        """
        read = changed = 0
        for name, path in list(self._paths.items()):
            signature = sign_file(path)
            if signature is None or (signature == self._signatures[name] and not always):
                continue
            self._signatures[name] = signature
            try:
                model = self._load(path, self._models[name])
            except ModelFileError as error:
                self._report(f"{error}; continuing with {self._models[name].inspector.label}")
                continue
            read += 1
            changed += model.inspector.sha256 != self._models[name].inspector.sha256
            with self._lock:
                self._stage(name, model)

        if always:
            self._report(f"read again as asked: {read} of {len(self._paths)} model files, {changed} with other content")

    def apply(self) -> None:
        """Apply the pending changes; called between two parts."""
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
            facts, self._dropped = self._dropped, []
        if before.label != after.label:
            facts.insert(0, f"judging with {after.label} now, before with {before.label}")
        if facts:
            self._report("; ".join(facts))

    def _stage(self, name: str | None, model: Model) -> None:
        """Let a model that was read judge from the next part on.

        A moved threshold is kept if the file is byte for byte the one on which it was set. Otherwise it is dropped.
        """
        before = self._pending.get(name, self._models[name]).inspector
        moves = self._moves.get(name)
        if moves and model.inspector.sha256 == before.sha256:
            self._pending[name] = _move(model, moves[-1])
            return
        self._pending[name] = model
        if moves:
            del self._moves[name]
            self._dropped.append(
                f"the threshold {moves[-1]:.6g} was set for {before.label} and is dropped: "
                f"{model.inspector.label} judges with its own, {model.inspector.threshold.score:.6g}"
            )

    def _load(self, path: Path, before: Model | None = None) -> Model:
        """Load and try a model file; raise ModelFileError if it cannot replace the one before."""
        self.loads += 1
        with lay_apart():
            inspector = self._open_inspector(path)
            _ = inspector.threshold
            # onnxruntime's errors share no base class
            with explaining(ModelFileError, f"{str(path)!r} loads, but cannot judge a picture", of=Exception):
                inspector.try_out()
            own = inspector.info.preprocess.channels
            channels = own if before is None else before.inspector.info.preprocess.channels
            if channels != own:
                words = {1: "grey images", 3: "colour images"}
                raise ModelFileError(
                    f"{str(path)!r} judges {words[own]}, and the line runs with {words[channels]}; "
                    "restart the line if that is intended"
                )
        limits = None if self.health is None else limits_for(self.health, inspector.info.appearance)
        return Model(inspector, limits)

    def _report(self, message: str) -> None:
        self.message = message
        _LOG.warning("%s", message)


def _move(model: Model, score: float) -> Model:
    """Return the model with another threshold; raise ChoiceError if the value is out of range."""
    inspector = model.inspector
    own = inspector.file_threshold
    if not np.isfinite(score):
        raise ChoiceError(f"the threshold is {score}; give a finite score")
    if own.score > 0 and not own.score / _FURTHEST <= score <= own.score * _FURTHEST:
        raise ChoiceError(
            f"the threshold cannot be {score:.6g}: the model file has {own.score:.6g}; "
            f"give {own.score / _FURTHEST:.6g} to {own.score * _FURTHEST:.6g}, or calibrate again"
        )
    with explaining(ChoiceError, f"the threshold cannot be {score}", of=ValueError):
        threshold = dataclasses.replace(
            own, score=float(score), map=float(score) if inspector.info.score.is_peak else own.map
        )
    return dataclasses.replace(model, inspector=inspector.with_threshold(threshold))


def _restore(model: Model) -> Model:
    return dataclasses.replace(model, inspector=model.inspector.with_threshold(model.inspector.file_threshold))
