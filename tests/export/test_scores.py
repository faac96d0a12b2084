import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from onspect.compare.commands import _COMPARED
from onspect.export.fitted_scores import COMPONENTS
from onspect.export.scores import SCORES, ScoreSpec, choose_score, find_score, own_score
from onspect.runtime.cli import main
from onspect.runtime.errors import ChoiceError
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.model.file import read_model_file
from onspect.training.checkpoint import load_trained
from onspect.training.config import VARIANTS, TrainConfig, design_network
from onspect.training.presets import NAMES, PRESETS

from .conftest import MakeRun


def test_help_describes_every_score() -> None:
    """The help of `onspect export` has each score's name and words."""
    shown = " ".join(CliRunner().invoke(main, ["export", "--help"], terminal_width=100).output.split())
    for spec in SCORES.values():
        assert spec.describe() in shown


def test_every_preset_has_its_score() -> None:
    """The autoencoder's own score of a preset is one that its networks can have."""
    for preset in PRESETS.values():
        spec = SCORES[preset.score]
        assert spec.on == preset.on
        assert preset.expects or not spec.expects
    assert set(COMPONENTS) < set(SCORES)


def test_unknown_score() -> None:
    """An unknown name is refused with the list of names."""
    with pytest.raises(ChoiceError, match=r"score is 'best'; choose one of memory, mse, .*combined"):
        find_score("best")


def test_a_comparison_has_what_all_runs_have() -> None:
    """`onspect compare --score all` leaves out exactly the scores that not every autoencoder of pixels has."""
    networks = []
    for name in NAMES:
        height, width, channels = next(iter(PRESETS[name].networks), (96, 128, 1))
        networks += [
            (name, design_network(variant, name, height=height, width=width, channels=channels)) for variant in VARIANTS
        ]
    configs = [TrainConfig(one, name, 1, 1, "adam", 1e-3, "cosine", (), 0.1, 0, 0) for name, one in networks]

    def is_refused(spec: ScoreSpec, config: TrainConfig) -> bool:
        try:
            spec.check(config)
        except ChoiceError:
            return True
        return False

    for name, spec in SCORES.items():
        refused = [is_refused(spec, config) for config in configs if config.network.variant in spec.variants]
        assert (name in _COMPARED) is not any(refused), name


BY_PLACE = [name for name, spec in SCORES.items() if spec.is_by_place and not spec.expects]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "mse" else pytest.mark.slow) for name in BY_PLACE]
)
def test_the_file_says_whether_the_score_is_the_maximum(make_file: MakeRun, tmp_path: Path, name: str) -> None:
    """`maximum` in the file is true exactly where the score is the error map's maximum."""
    file = make_file("cae", score=name)
    scored = Inspector(file).run(np.random.default_rng(1).integers(0, 255, (3, 28, 28, 1), np.uint8))
    is_maximum = bool(np.array_equal(scored.score, scored.error_map.max(axis=(1, 2))))
    info = read_model_file(file).info
    assert info.score.maximum is is_maximum
    assert json.loads(json.dumps(info.to_dict()))["score"]["maximum"] is is_maximum
    assert info.format_version == 1


def test_without_a_name_the_memory_is_chosen(make_run: MakeRun) -> None:
    """A run on pixels gets a memory by default; the autoencoder's own score is the preset's."""
    config = load_trained(make_run()).record.config
    assert (choose_score(None, config).name, own_score(config).name) == ("memory", "mse")
