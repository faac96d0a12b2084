import base64
import csv
import json
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from matplotlib.axes import Axes

from onspect.calibration.metrics.image import measure_areas
from onspect.compare import experiments, workers
from onspect.compare.datasets import load_dataset
from onspect.compare.experiments import Settings
from onspect.compare.figures import choose_examples, draw_figures
from onspect.compare.results import gather
from onspect.compare.run import Plan, _choose_scores, _plan_experiments
from onspect.compare.workers import Work, complete_experiments
from onspect.runtime.errors import ChoiceError
from onspect.runtime.inspection.inspector import Inspector
from onspect.training import session

from ..sharing import Share

Onspect = Callable[..., Result]

QUICK = ("--limit", 24, "--epochs", 2, "--jobs", 1)


@pytest.fixture(scope="module")
def compared(share: Share, onspect: Onspect, drawn_idx: Path) -> Path:
    """The folder of a comparison of all three variants on drawn classes, class 0 normal."""
    return share("compared", lambda folder: compare(folder, onspect, drawn_idx))


def compare(folder: Path, onspect: Onspect, drawn_idx: Path) -> None:
    """Compare in a folder."""
    result = onspect("compare", drawn_idx, "-o", folder, "--normal", 0, *QUICK)
    assert result.exit_code == 0, result.output


@pytest.fixture
def copied(compared: Path, tmp_path: Path) -> Path:
    """A copy of it, for a test that writes into it."""
    return Path(shutil.copytree(compared, tmp_path / "copied"))


def read_json(folder: Path) -> Any:
    return json.loads((folder / "compare.json").read_text(encoding="utf-8"))


@pytest.mark.slow
def test_figures_are_those_of_the_exported_file(compared: Path, drawn_idx: Path) -> None:
    """Each area is that of the scores which the exported file gives the test images, anomalous against normal ones."""
    dataset = load_dataset(drawn_idx, limit=24)
    labels = dataset.test.labels
    for variant in ("cae", "vae", "aae"):
        scores = Inspector(compared / "runs" / "0" / f"{variant}-0" / "mse.onnx").run(dataset.test.images).score
        (found,) = [r for r in read_json(compared)["results"] if (r["variant"], r["score"]) == (variant, "mse")]
        for name, chosen in (("1", labels == 1), ("2", labels == 2), ("all together", labels > 0)):
            expected = measure_areas(scores[labels == 0], scores[chosen])
            assert found["classes"][name] == pytest.approx(expected.values, abs=1e-6)


@pytest.mark.slow
def test_variants_are_trained_alike(compared: Path) -> None:
    """All variants have the same epochs, learning rate, batch size, seed and images; only the variant differs."""
    records = [json.loads(path.read_bytes()) for path in sorted(compared.glob("runs/0/*/config.json"))]
    assert sorted(record["config"]["network"].pop("variant") for record in records) == ["aae", "cae", "vae"]
    assert all(record["config"] == records[0]["config"] for record in records)
    assert all(record["data"] == records[0]["data"] for record in records)


@pytest.mark.slow
def test_every_format_says_the_same(compared: Path) -> None:
    """The CSV file has a line for each area in the JSON file, and the Markdown shows its AUROC."""
    results = read_json(compared)["results"]
    lines = list(csv.DictReader((compared / "compare.csv").read_text(encoding="utf-8").splitlines()))
    page = (compared / "compare.md").read_text(encoding="utf-8")
    assert len(lines) == 12
    for result in results:
        for name, area in result["classes"].items():
            known = (result["variant"], result["score"], name)
            (line,) = [row for row in lines if (row["variant"], row["score"], row["anomalous"]) == known]
            assert float(line["auroc"]) == pytest.approx(area["auroc"], abs=1e-6)
            assert f"{area['auroc']:.4f}" in page


@pytest.mark.slow
def test_costs_are_those_of_the_files(compared: Path) -> None:
    """Parameters, size and latency of each variant's file, and the time of its training, are in the tables."""
    content = read_json(compared)
    for cost in content["costs"]:
        file = compared / "runs" / "0" / f"{cost['variant']}-0" / f"{cost['score']}.onnx"
        assert cost["file_bytes"] == file.stat().st_size
        assert cost["parameters"] == Inspector(file).info.network.parameters
        assert cost["latency_ms"] > 0
    assert all(trained["seconds"] > 0 and trained["cpu_seconds"] > 0 for trained in content["trained"])


@pytest.mark.slow
def test_the_memory_stands_beside_the_variants(compared: Path) -> None:
    """Without --score the memory is measured once for all variants, and marked as pretrained."""
    found = [result for result in read_json(compared)["results"] if result["score"] == "memory"]
    assert [result["variant"] for result in found] == ["cae"]
    page = (compared / "compare.md").read_text(encoding="utf-8")
    assert "| memory (pretrained) | " in page
    assert "| anomalous | memory AUROC | memory AUPR |" in page


@pytest.mark.parametrize(
    ("variants", "scores", "chosen"),
    [
        (("cae", "vae"), (), {"cae": ("mse", "memory"), "vae": ("mse",)}),
        (("vae", "aae"), ("memory", "kl"), {"vae": ("memory", "kl"), "aae": ()}),
        (("aae",), ("critic", "critic", "mse"), {"aae": ("critic", "mse")}),
    ],
)
def test_each_variant_has_its_scores(
    tmp_path: Path, variants: tuple[str, ...], scores: tuple[str, ...], chosen: dict[str, tuple[str, ...]]
) -> None:
    """A score is measured of the variants that have it; the memory, which has none, of the first."""
    assert _choose_scores(Plan(tmp_path, tmp_path, variants, scores=scores), "paper") == chosen


def test_a_variant_without_a_score_is_not_trained(drawn_idx: Path, tmp_path: Path) -> None:
    """The memory alone needs one run, of the first variant."""
    plan = Plan(drawn_idx, tmp_path, ("cae", "vae", "aae"), normal=("0",), scores=("memory",), seeds=2)
    planned = _plan_experiments(plan, load_dataset(drawn_idx, limit=24))
    assert [(experiment.variant, experiment.seed) for experiment in planned] == [("cae", 0), ("cae", 1)]


@pytest.mark.parametrize(("score", "words"), [("kl", "none of cae has the score kl"), ("expected", "not every auto")])
def test_scores_that_a_comparison_cannot_have(tmp_path: Path, score: str, words: str) -> None:
    """A score that none of the variants has, or not every run, is refused."""
    with pytest.raises(ChoiceError, match=words):
        _choose_scores(Plan(tmp_path, tmp_path, ("cae",), scores=(score,)), "balanced")


@pytest.mark.slow
def test_page_holds_tables_and_figures(compared: Path) -> None:
    """The page shows every table and embeds the figures, which are beside it too, and needs nothing else."""
    page = (compared / "compare.html").read_text(encoding="utf-8")
    for name in ("examples.svg", "curves-mse.svg"):
        assert base64.b64encode((compared / name).read_bytes()).decode() in page
    for line in (compared / "compare.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            assert f"<h2>{line[3:]}</h2>" in page
    assert not re.search(r"<script|src=.(?!data:)|https?://", page)


@pytest.mark.slow
def test_examples_are_not_picked(compared: Path, drawn_idx: Path, onspect: Onspect) -> None:
    """Of each class the figure shows the test image of median score by the first variant."""
    dataset = load_dataset(drawn_idx, limit=24)
    cell = experiments.Experiment(("0",), "cae", 0, ("mse",))
    settings = experiments.Settings(**json.loads((compared / "settings.json").read_bytes()))
    comparison = gather([cell], settings, dataset, compared)
    scores = np.load(compared / cell.folder / "mse.npy")
    shown = choose_examples(comparison, cell, "mse", compared)
    assert [name for name, _ in shown] == ["0", "1", "2"]
    for name, index in shown:
        of_class = np.sort(scores[dataset.test.labels == int(name)])
        assert scores[index] == of_class[len(of_class) // 2]


@pytest.mark.slow
def test_examples_stand_under_their_variant(copied: Path, drawn_idx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each column of the examples shows the reconstructions by the variant in its title."""
    titled: dict[str, list[Any]] = {}

    def imshow(axes: Axes, picture: Any, **_: Any) -> None:
        place = axes.get_subplotspec()
        assert place is not None
        title = axes.figure.axes[place.colspan.start].get_title()  # of the first row
        titled.setdefault(title, []).append(picture)

    dataset = load_dataset(drawn_idx, limit=24)
    settings = experiments.Settings(**json.loads((copied / "settings.json").read_bytes()))
    planned = [experiments.Experiment(("0",), variant, 0, ("mse",)) for variant in ("cae", "vae", "aae")]
    comparison = gather(planned, settings, dataset, copied)
    monkeypatch.setattr(Axes, "imshow", imshow)
    draw_figures(comparison, copied)
    shown = [index for _, index in choose_examples(comparison, planned[0], "mse", copied)]
    for cell in planned:
        made = Inspector(copied / cell.folder / "mse.onnx").reconstruct(dataset.test.images[shown])
        for picture, expected in zip(titled[cell.variant.upper()], made, strict=True):
            np.testing.assert_array_equal(picture[:, :, 0], expected[:, :, 0])


@pytest.mark.slow
def test_nothing_is_trained_twice(copied: Path, drawn_idx: Path, onspect: Onspect) -> None:
    """A comparison whose tables and one variant's scores are gone computes those again and keeps the rest."""
    places = {path: path.stat().st_mtime_ns for path in copied.glob("runs/0/*/weights.safetensors")}
    before = {path: np.load(path) for path in copied.glob("runs/0/*/mse.npy")}
    (copied / "compare.md").unlink()
    (copied / "runs/0/vae-0/mse.npy").unlink()
    command = ("compare", drawn_idx, "-o", copied, "--normal", 0, "--variants", "cae,vae", "--score", "mse", *QUICK)
    assert onspect(*command).exit_code == 0
    assert (copied / "compare.md").exists()
    assert {path: path.stat().st_mtime_ns for path in places} == places
    for path, scores in before.items():
        np.testing.assert_array_equal(np.load(path), scores)


@pytest.mark.slow
def test_interrupted_comparison_goes_on(
    compared: Path, drawn_idx: Path, onspect: Onspect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in a training saves it; the same command then ends with the scores of an uninterrupted comparison."""

    def interrupt(moment: Any) -> None:
        if moment.step == 1:
            signal.raise_signal(signal.SIGINT)

    def train(*arguments: Any, **settings: Any) -> Any:
        return session.train(*arguments, **settings, callbacks=session.Callbacks(step=interrupt))

    command = ("compare", drawn_idx, "-o", tmp_path, "--normal", 0, "--variants", "vae", "--score", "mse", *QUICK)
    with monkeypatch.context() as patched:
        patched.setattr(experiments, "train", train)
        stopped = onspect(*command)
    assert stopped.exit_code == 1
    assert "interrupted and saved; the same command continues" in stopped.stderr
    assert onspect(*command).exit_code == 0
    np.testing.assert_array_equal(
        np.load(tmp_path / "runs/0/vae-0/mse.npy"), np.load(compared / "runs/0/vae-0/mse.npy")
    )


def test_ctrl_c_before_the_first_training_leaves_no_folder(
    drawn_idx: Path, onspect: Onspect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A comparison that has trained nothing yet leaves nothing; with other choices the folder can be used at once."""

    def interrupt(*_: object, **__: object) -> None:
        assert (tmp_path / "new" / "settings.json").exists()
        raise KeyboardInterrupt

    monkeypatch.setattr("onspect.compare.run.complete_experiments", interrupt)
    result = onspect("compare", drawn_idx, "-o", tmp_path / "new", "--normal", 0, *QUICK)
    assert (result.exit_code, "Aborted" in result.stderr) == (1, True)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_other_choices_need_another_folder(compared: Path, drawn_idx: Path, onspect: Onspect) -> None:
    """A folder that has a comparison with other epochs is refused, and both numbers are named."""
    result = onspect("compare", drawn_idx, "-o", compared, "--normal", 0, "--limit", 24, "--epochs", 3)
    assert result.exit_code == 2
    assert "contains a comparison with epochs 2, not 3" in result.stderr


@pytest.mark.slow
def test_every_class_in_processes(copied: Path, drawn_idx: Path, onspect: Onspect) -> None:
    """One against the rest trains the classes that it lacks in parallel processes, and reports each and their mean."""
    result = onspect(
        "compare",
        drawn_idx,
        "-o",
        copied,
        "--every-class",
        "--variants",
        "cae",
        "--score",
        "mse",
        *QUICK[:-1],
        2,
    )
    assert result.exit_code == 0, result.output
    found = {tuple(item["normal"]): item["classes"]["all together"]["auroc"] for item in read_json(copied)["results"]}
    assert set(found) == {("0",), ("1",), ("2",)}
    row = next(line for line in result.stdout.splitlines() if line.startswith("| mean |"))
    assert float(row.split("|")[3]) == pytest.approx(np.mean(list(found.values())), abs=5e-5)
    assert sorted(item["jobs"] for item in read_json(copied)["trained"]) == [1, 2, 2]


@pytest.mark.parametrize(("limit", "threads"), [("", 4), ("1", 1), ("3,2", 3), ("8", 4), ("many", 4)])
def test_one_job_has_all_cores_up_to_the_limit_of_the_environment(
    drawn_idx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, threads: int
) -> None:
    """A single job uses every core that the process may use, and no more threads than OMP_NUM_THREADS."""
    monkeypatch.setenv("OMP_NUM_THREADS", limit)
    monkeypatch.setattr(workers, "available_cores", lambda: 4)
    settings = Settings("bars", "", "paper", 1, 12)
    work = Work(settings, drawn_idx, "paper", tmp_path, 1)
    complete_experiments([], work, load_dataset(drawn_idx, limit=12), lambda _: None)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--normal", "dog"), "'dog' is not a class of bars; choose from 0, 1, 2"),
        ((), "say which class is normal with --normal, or --every-class; bars has 0, 1, 2"),
        (("--normal", "0", "--every-class"), "leave out --normal"),
        (("--normal", "0", "--variants", "gan"), "'gan' names no variants"),
    ],
)
def test_wrong_choices(
    drawn_idx: Path, onspect: Onspect, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    """An unknown class, variant or combination is wrong usage, and nothing is written."""
    result = onspect("compare", drawn_idx, "-o", tmp_path / "new", *arguments)
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.split())
    assert not (tmp_path / "new").exists()


def test_missing_file_of_a_collection(drawn_idx: Path, onspect: Onspect, tmp_path: Path) -> None:
    """If one of the four IDX files is missing, it is named."""
    for path in drawn_idx.iterdir():
        if "t10k-labels" not in path.name:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    result = onspect("compare", tmp_path, "-o", tmp_path / "new")
    assert result.exit_code == 1
    assert "no t10k-labels" in result.stderr
