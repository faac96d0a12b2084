import dataclasses
import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from onspect.runtime.cli import main
from onspect.runtime.errors import TrainingError
from onspect.runtime.model.schema import SourceLimits
from onspect.training import session
from onspect.training.autoencoder.loop import TrainingProgress
from onspect.training.checkpoint import read_record
from onspect.training.summary import describe

CPU = session.Devices(accelerator="cpu")


def options(**changes: Any) -> session.TrainOptions:
    return session.TrainOptions(**({"epochs": 3, "batch_size": 8} | changes))


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "weights.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["cae", "vae", "aae"])
def test_training_lowers_the_error(parts: Path, tmp_path: Path, variant: str) -> None:
    """Each variant's held-out error falls, and the run has what export needs."""
    session.train(parts, tmp_path / "run", options(variant=variant, epochs=30, learning_rate=3e-3), devices=CPU)
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in log] == list(range(1, 31))
    assert log[-1]["held_out"] < 0.9 * log[0]["held_out"]
    assert {"config.json", "weights.safetensors", "samples.safetensors", "preview.png"} <= {
        path.name for path in (tmp_path / "run").iterdir()
    }


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["cae", "vae", "aae"])
def test_seed_repeats(parts: Path, tmp_path: Path, variant: str) -> None:
    """The same seed gives the same weights, another seed others."""
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        session.train(parts, tmp_path / name, options(variant=variant, seed=seed, epochs=1), devices=CPU)
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert not same(weights(tmp_path / "a"), weights(tmp_path / "c"))


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["cae", "vae", "aae"])
def test_the_expected_error_leaves_the_autoencoder_alone(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variant: str
) -> None:
    """All other weights are those of a run whose decoder has no second output, to the last bit."""
    chosen = options(variant=variant, preset="fast")
    session.train(parts, tmp_path / "with", chosen, devices=CPU)
    design = session.design_network
    monkeypatch.setattr(
        session, "design_network", lambda *args, **sizes: dataclasses.replace(design(*args, **sizes), expects=False)
    )
    session.train(parts, tmp_path / "without", chosen, devices=CPU)
    found, expected = weights(tmp_path / "with"), weights(tmp_path / "without")
    assert found.keys() - expected.keys() == {"decoder.expectation.0.weight", "decoder.expectation.0.bias"}
    assert same({name: found[name] for name in expected}, expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "stop_at"),
    [
        ("aae", 3),
        *(
            pytest.param(variant, stop_at, marks=pytest.mark.slow)
            for variant in ("cae", "vae", "aae")
            for stop_at in (1, 3, 5)
            if (variant, stop_at) != ("aae", 3)
        ),
    ],
)
def test_resume_gives_the_uninterrupted_result(parts: Path, tmp_path: Path, variant: str, stop_at: int) -> None:
    """A run stopped in the middle or at the end of an epoch gets exactly the weights of an uninterrupted run."""
    chosen = options(variant=variant, augment=("brightness", "shift"), schedule="cosine", optimizer="adamw")
    session.train(parts, tmp_path / "whole", chosen, devices=CPU)

    def stop(moment: TrainingProgress) -> None:
        if moment.step == stop_at:
            signal.raise_signal(signal.SIGINT)

    outcome = session.train(parts, tmp_path / "cut", chosen, devices=CPU, callbacks=session.Callbacks(step=stop))
    assert outcome.reason == "interrupted"
    assert session.resume(tmp_path / "cut", devices=CPU).reason == "finished"
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))
    logs = [
        [{**json.loads(line), "seconds": 0} for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        for name in ("whole", "cut")
    ]
    assert logs[0] == logs[1]


def test_a_failure_before_the_first_checkpoint_leaves_no_run(parts: Path, tmp_path: Path) -> None:
    """A diverging first epoch leaves no folder, and what the user has in the folder stays."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    for name in ("new", "mine"):
        with pytest.raises(TrainingError, match="no epoch was completed"):
            session.train(parts, tmp_path / name, options(learning_rate=1e30), devices=CPU)
    assert not (tmp_path / "new").exists()
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_early_stopping_keeps_the_best(parts: Path, tmp_path: Path) -> None:
    """Without progress training ends after its patience, and a resumed run does not continue past that."""
    outcome = session.train(parts, tmp_path / "run", options(epochs=50, learning_rate=1e-12, patience=2), devices=CPU)
    assert outcome.reason == "stopped early"
    assert outcome.epoch < 50
    assert session.resume(tmp_path / "run", devices=CPU).epoch == outcome.epoch


def test_divergence_is_told(parts: Path, tmp_path: Path) -> None:
    """A loss that is not a number ends training with where, and what to change."""
    with pytest.raises(TrainingError, match=r"loss is (nan|inf) in epoch \d+, batch \d+.*lower --learning-rate"):
        session.train(parts, tmp_path / "run", options(learning_rate=1e30), devices=CPU)


def test_a_run_is_not_overwritten(parts: Path, tmp_path: Path) -> None:
    """A folder with a run in it is refused, with the way to continue."""
    session.train(parts, tmp_path / "run", options(epochs=1), devices=CPU)
    before = weights(tmp_path / "run")
    with pytest.raises(TrainingError, match="--resume"):
        session.train(parts, tmp_path / "run", options(epochs=1, seed=5), devices=CPU)
    assert same(before, weights(tmp_path / "run"))


def test_resume_needs_the_same_images(parts: Path, tmp_path: Path) -> None:
    """A resumed run whose images have changed is refused with how many are missing."""
    session.train(parts, tmp_path / "run", options(epochs=1), devices=CPU)
    (parts / "train" / "good" / "000.png").unlink()
    with pytest.raises(TrainingError, match="1 of the images"):
        session.resume(tmp_path / "run", devices=CPU)


def test_resume_finds_images_that_were_added_to(parts: Path, tmp_path: Path) -> None:
    """New images in the folder do not change a resumed run."""
    session.train(parts, tmp_path / "whole", options(), devices=CPU)
    session.train(
        parts,
        tmp_path / "cut",
        options(),
        devices=CPU,
        callbacks=session.Callbacks(step=lambda moment: moment.step == 2 and signal.raise_signal(signal.SIGINT)),
    )
    data = (parts / "train" / "good" / "000.png").read_bytes()
    (parts / "train" / "good" / "000000.png").write_bytes(data)
    session.resume(tmp_path / "cut", devices=CPU)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))


def test_held_out_images_are_not_trained_on(parts: Path, tmp_path: Path) -> None:
    """The record tells training from held-out images, and they share none."""
    session.train(parts, tmp_path / "run", options(epochs=1, holdout=0.25), devices=CPU)
    data = json.loads((tmp_path / "run" / "config.json").read_text())["data"]
    assert (len(data["images"]), len(data["held_out"])) == (18, 6)
    assert not set(data["images"]) & set(data["held_out"])


@pytest.mark.parametrize(
    "bad",
    [
        {"variant": "gan"},
        {"holdout": 0.9},
        {"epochs": 0},
        {"learning_rate": 0.0},
        {"augment": ("sparkle",)},
        {"preset": "huge"},
    ],
)
def test_bad_choices_name_the_value(parts: Path, tmp_path: Path, bad: dict[str, Any]) -> None:
    """An invalid choice is refused before anything is written, with its value."""
    with pytest.raises(ValueError, match=str(next(iter(bad.values()))).strip("()',")):
        session.train(parts, tmp_path / "run", options(**bad), devices=CPU)
    assert not (tmp_path / "run").exists()


def test_command_trains_and_says_what_it_chose(parts: Path, tmp_path: Path) -> None:
    """The command names the network, the counts and the next step on stderr."""
    result = CliRunner().invoke(
        main, ["train", str(parts), "-o", str(tmp_path / "run"), "--epochs", "1", "--device", "cpu"]
    )
    assert result.exit_code == 0, result.output
    assert "CAE on 22 good images (2 held out" in result.stderr
    assert "preset paper" in result.stderr
    assert "next: onspect export" in result.stderr


def test_the_plan_says_why_the_size(parts: Path, tmp_path: Path) -> None:
    """The plan names the working size relative to the images', the objective, and the score."""
    chosen = options(epochs=1, preset="fast", size=(64, 64))
    session.train(parts, tmp_path / "run", chosen, devices=CPU)
    record = read_record(tmp_path / "run")

    def plan(preset: str, size: tuple[int, int], *source: tuple[int, int] | None) -> str:
        preprocess = dataclasses.replace(
            record.data.recipe, width=size[0], height=size[1], source=SourceLimits((1,), *source)
        )
        config = dataclasses.replace(record.config, preset=preset)
        data = dataclasses.replace(record.data, recipe=preprocess)
        return describe(dataclasses.replace(record, config=config, data=data))

    words = plan("balanced", (288, 224), (640, 640), (480, 480))
    assert (
        "size 288x224 mono: from 640x480, stretched 1.04 times; preset balanced takes at most 65,536 pixels\n" in words
    )
    assert "objective the paper's mean squared error (Eq. 2); " in words
    assert words.endswith("score of the autoencoder: relative (see 'onspect export --help')")
    words = plan("accurate", (256, 256), (60, 600), (60, 600))
    assert "size 256x256 mono: images of different sizes are resized to it\n" in words
    assert "mono: all images are resized to it\n" in plan("fast", (128, 96), None, None)
    assert "mono: the images' own\n" in plan("fast", (60, 60), (60, 60), (60, 60))
    assert "mono: from 60x60; given by --size\n" in plan("fast", (40, 40), (60, 60), (60, 60))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-o", "{run}"], "give DATA"),
        (["{parts}", "-o", "{run}", "--size", "12y7"], "12y7"),
        (["{parts}", "-o", "{run}", "--augment", "sparkle"], "sparkle"),
        (["--resume", "-o", "{run}", "--epochs", "3"], "leave out --epochs"),
        (["{parts}", "-o", "{run}", "--preset", "paper", "--size", "64"], "64x64"),
    ],
)
def test_command_refuses_bad_usage(parts: Path, tmp_path: Path, arguments: list[str], words: str) -> None:
    """Bad usage ends with exit code 2, the value at fault, and nothing written."""
    filled = [part.format(parts=parts, run=tmp_path / "run") for part in arguments]
    result = CliRunner().invoke(main, ["train", *filled])
    assert result.exit_code == 2
    assert words in result.stderr
    assert not (tmp_path / "run").exists()
