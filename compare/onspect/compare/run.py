"""A comparison from a plan to its tables; the Python interface of ``onspect compare``."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from onspect.compare.datasets import Dataset, load_dataset
from onspect.compare.experiments import RUNS, Experiment, Settings, describe_normal, is_complete, read_trained, reading
from onspect.compare.report import write_comparison
from onspect.compare.results import gather
from onspect.compare.workers import Work, complete_experiments
from onspect.export.scores import MEMORY, SCORES, find_score
from onspect.runtime.atomic import new_folder, write_atomically
from onspect.runtime.cpu import available_cores
from onspect.runtime.errors import ChoiceError, DatasetError
from onspect.runtime.records import parse_dataclass
from onspect.training.config import VARIANTS
from onspect.training.presets import PRESETS

_SETTINGS = "settings.json"

Tell = Callable[[Experiment, int, int, str], None]


@dataclass(frozen=True)
class Plan:
    """Options of a comparison. With None and (), the data decide."""

    data: str | Path
    """The dataset folder."""
    folder: str | Path
    """Folder of the comparison; an incomplete comparison in it is continued."""
    variants: tuple[str, ...] = VARIANTS
    """Names of variants: ``cae``, ``vae``, ``aae``."""
    normal: tuple[str, ...] = ()
    """Classes that are normal together."""
    every_class: bool = False
    """Make each class normal in turn, instead of `normal`."""
    seeds: int = 1
    """Number of seeds, from 0."""
    epochs: int | None = None
    """Passes over the images, 1 or more."""
    preset: str | None = None
    """Name of a preset."""
    scores: tuple[str, ...] = ()
    """Names of scores; () for all that the variants have."""
    limit: int | None = None
    """Largest number of images of each class, 1 or more."""
    jobs: int | None = None
    """Number of experiments that train at the same time; None for one on each core."""


def compare(plan: Plan, tell: Tell | None = None) -> list[Path]:
    """Complete the missing experiments of a comparison, and write its tables.

    Parameters
    ----------
    plan
        Options of the comparison.
    tell
        Called after each experiment with the experiment, the number of complete ones, the total and a message.

    Returns
    -------
    list[Path]
        Paths of the tables, Markdown first.

    Raises
    ------
    ChoiceError
        If a class, a score or the preset is not valid, or the folder contains another comparison.
    DatasetError
        If the data cannot be used.
    InterruptedExperimentError
        If the comparison was interrupted; its training is saved.
    TrainingError
        If an experiment failed.
    OutputError
        If the folder cannot be written.
    """
    data, folder = Path(plan.data), Path(plan.folder)
    dataset = load_dataset(data, preset=plan.preset, limit=plan.limit)
    settings = Settings(dataset.name, dataset.fingerprint(), dataset.preset, plan.epochs, plan.limit)
    experiments = _plan_experiments(plan, dataset)
    finished = 0

    def done(experiment: Experiment) -> None:
        nonlocal finished
        finished += 1
        if tell is not None:
            trained = read_trained(experiment, folder)
            tell(experiment, finished, len(experiments), f"{trained.epochs} epochs in {trained.seconds:.0f} s, scored")

    with new_folder(folder, keep=(folder / RUNS).exists):
        _claim(folder, settings)
        waiting = [experiment for experiment in experiments if not is_complete(experiment, folder)]
        jobs = min(plan.jobs or available_cores(), max(1, len(waiting)))
        finished = len(experiments) - len(waiting)
        complete_experiments(waiting, Work(settings, data, plan.preset, folder, jobs), dataset, done)
        return write_comparison(folder, gather(experiments, settings, dataset, folder))


def _choose_scores(plan: Plan, preset: str) -> dict[str, tuple[str, ...]]:
    """Return the scores of each variant; the memory has no variant and is listed under the first."""
    names = tuple(dict.fromkeys(plan.scores)) or (PRESETS[preset].score, MEMORY)
    for name in names:
        if not find_score(name).is_compared:
            raise ChoiceError(f"score is {name!r}, which not every autoencoder of pixels has; leave it out")
    chosen = {
        variant: tuple(name for name in names if variant in SCORES[name].variants and (name != MEMORY or not place))
        for place, variant in enumerate(plan.variants)
    }
    if not any(chosen.values()):
        raise ChoiceError(f"none of {', '.join(plan.variants)} has the score {', '.join(names)}; add its variant")
    return chosen


def _plan_experiments(plan: Plan, dataset: Dataset) -> list[Experiment]:
    """Return all experiments, seed by seed, so that an interrupted comparison has complete seeds."""
    if plan.every_class:
        trained = {dataset.classes[index] for index in set(dataset.train.labels.tolist())}
        normals: list[tuple[str, ...]] = [(name,) for name in dataset.classes if name in trained]
    else:
        normal = tuple(dict.fromkeys(plan.normal)) or dataset.usual
        if not normal:
            raise ChoiceError(
                f"say which class is normal with --normal, or --every-class; {dataset.name} has "
                f"{', '.join(dataset.classes)}"
            )
        dataset.indices(normal)
        normals = [normal]
    if len({describe_normal(normal) for normal in normals}) < len(normals):
        raise DatasetError(f"classes of {dataset.name} have names that give the same folder; rename them")
    scores = _choose_scores(plan, dataset.preset)
    return [
        Experiment(normal, variant, seed, scores[variant])
        for seed in range(plan.seeds)
        for normal in normals
        for variant in plan.variants
        if scores[variant]  # otherwise it would be trained for nothing
    ]


def _claim(folder: Path, settings: Settings) -> None:
    """Write the settings into the comparison's folder, or compare them with those that are there."""
    path = folder / _SETTINGS
    if not path.exists():
        write_atomically(path, (json.dumps(asdict(settings), indent=1) + "\n").encode())
        return
    with reading(path, "give another folder"):
        there = parse_dataclass(Settings, json.loads(path.read_bytes()))
    for field in fields(Settings):
        old, new = getattr(there, field.name), getattr(settings, field.name)
        if old != new:
            raise ChoiceError(
                f"{str(folder)!r} contains a comparison with {field.name} {old}, not {new}: runs trained differently "
                "do not compare; give another folder with -o, or the same choices"
            )
