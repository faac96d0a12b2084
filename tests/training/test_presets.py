import pytest
from click.testing import CliRunner

from onspect.runtime.cli import main
from onspect.runtime.errors import ChoiceError
from onspect.training.autoencoder.networks import map_sizes
from onspect.training.config import AUGMENTATIONS, SCHEDULES, design_network
from onspect.training.presets import DEFAULT, NAMES, PRESETS, check_preset, choose_preset, describe_defaults


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_designs_a_network(name: str) -> None:
    """Each row has all that a network and a run need, for the sizes that it takes."""
    preset = PRESETS[name]
    height, width, channels = next(iter(preset.networks), (96, 128, 1))
    network = design_network("cae", name, height=height, width=width, channels=channels)
    assert (network.latent, network.expects) == (preset.latent, preset.expects)
    assert len(network.filters) == len(network.strides)
    assert min(map_sizes(network)[-1]) <= 8
    assert (preset.epochs > 0) != (preset.steps > 0)
    assert preset.is_fixed or preset.pixel_budget is not None
    assert preset.schedule in SCHEDULES
    assert set(preset.augment) <= set(AUGMENTATIONS)


def test_sizes_choose_the_preset() -> None:
    """A preset with networks for fixed sizes is the default only if all images have one of them."""
    assert choose_preset([(28, 28)], 1) == choose_preset([(32, 32), (32, 32)], 3) == "paper"
    assert choose_preset([(28, 28)], 3) == choose_preset([(28, 28), (28, 29)], 1) == DEFAULT


def test_unknown_preset() -> None:
    """An unknown name is refused with the names; the row for features cannot be chosen by name."""
    for name in ("huge", "features"):
        with pytest.raises(ChoiceError, match=rf"preset is '{name}'; choose one of {', '.join(NAMES)}"):
            check_preset(name)


def test_help_describes_every_preset() -> None:
    """The help of `onspect train` has each preset's own words and the defaults that depend on it."""
    shown = " ".join(CliRunner().invoke(main, ["train", "--help"], terminal_width=100).output.split())
    for name in NAMES:
        assert PRESETS[name].describe() in shown
    for field in ("epochs", "batch_size", "schedule", "augment"):
        assert describe_defaults(field) in shown
