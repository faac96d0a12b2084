from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from onspect.calibration.metrics.image import count_confusion
from onspect.calibration.thresholds import (
    POLICIES,
    Cost,
    MaxF1,
    MaxFpr,
    MinRecall,
    Policy,
    Quantile,
)
from onspect.runtime.conformal import candidates, format_rate, quantile
from onspect.runtime.errors import ChoiceError, DatasetError, ModelFileError
from onspect.runtime.model.schema import Rule, Threshold

RATES = (0.005, 0.07, 0.5, 0.99)


VALUES = {"float": 0.25, "tuple[float, float]": (1.0, 50.0), "float | None": 0.02}
"""A value for each type of field that a policy has."""
EXAMPLES = [kind(*(VALUES[str(field.type)] for field in dataclasses.fields(kind))) for kind in POLICIES]


def draw(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return good and defective scores that overlap and contain many ties, as float32 scores made float64."""
    generator = np.random.default_rng(seed)
    good = generator.normal(1.0, 0.3, generator.integers(1, 120))
    defective = generator.normal(1.4, 0.5, generator.integers(1, 80))
    digits = int(generator.integers(1, 5))
    return (
        np.round(good, digits).astype(np.float32).astype(np.float64),
        np.round(defective, digits).astype(np.float32).astype(np.float64),
    )


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("seed", range(10))
def test_max_fpr_holds_its_rate_and_no_lower_cut_would(seed: int, rate: float) -> None:
    """Max-fpr rejects at most the rate, and the next lower observed score as a cut would reject more."""
    good, defective = draw(seed)
    threshold = MaxFpr(rate).choose(good, defective)
    assert np.mean(good >= threshold) <= rate
    below = np.concatenate([good, defective])
    below = below[below < threshold]
    if len(below):
        assert np.mean(good >= below.max()) > rate


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("seed", range(10))
def test_min_recall_holds_its_rate_and_no_higher_cut_would(seed: int, rate: float) -> None:
    """Min-recall catches at least the rate, and a cut above the next observed score would catch less."""
    good, defective = draw(seed)
    threshold = MinRecall(rate).choose(good, defective)
    assert np.mean(defective >= threshold) >= rate
    above = np.concatenate([good, defective])
    above = above[above >= threshold]
    assert np.mean(defective > above.min()) < rate


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("seed", range(10))
def test_quantile_passes_its_rate_and_no_lower_cut_would(seed: int, rate: float) -> None:
    """Quantile passes at least the rate of the good images, and the next lower good score as a cut would pass fewer."""
    good, _ = draw(seed)
    threshold = quantile(good, rate)
    assert np.mean(good < threshold) >= rate
    assert np.mean(good < good[good < threshold].max()) < rate


@pytest.mark.parametrize("seed", range(10))
def test_max_f1_is_the_best_of_every_cut(seed: int) -> None:
    """Max-F1 finds the F1 that trying every observed score as a cut finds."""
    good, defective = draw(seed)
    cuts = np.append(np.concatenate([good, defective]), np.inf)
    best = max(count_confusion(good, defective, Threshold(cut, cut)).f1 or 0.0 for cut in cuts)
    cut = MaxF1().choose(good, defective)
    assert count_confusion(good, defective, Threshold(cut, cut)).f1 == best


@pytest.mark.parametrize("seed", range(10))
def test_a_threshold_lies_between_scores(seed: int) -> None:
    """No policy puts the threshold on an observed score that has a lower neighbour."""
    good, defective = draw(seed)
    every = np.concatenate([good, defective])
    for policy in EXAMPLES:
        if policy.option is None:
            continue  # set by hand
        assert policy.choose(good, defective) not in every[every > every.min()], policy.name


def test_separated_scores_are_cut_in_the_middle() -> None:
    """If good and defective scores do not overlap, max-F1 cuts midway between them."""
    assert MaxF1().choose(np.array([1.0, 2.0]), np.array([4.0, 5.0])) == 3.0


def test_equal_f1_takes_the_lower_threshold() -> None:
    """Of two thresholds with the same F1 the lower one, which catches more, is chosen."""
    good, defective = np.array([2.0]), np.array([1.0, 3.0])
    # All ng: 2 caught, 1 false, F1 0.8; between 2 and 3: 1 caught, 1 missed, F1 2/3.
    assert MaxF1().choose(good, defective) == 1.0
    good, defective = np.array([1.0, 3.0, 3.0]), np.array([2.0, 4.0])
    # From 1.5: 2 caught, 2 false, F1 2/3; from 3.5: 1 caught, 1 missed, F1 2/3.
    assert MaxF1().choose(good, defective) == 1.5


def test_a_rate_that_is_reached_exactly_is_allowed() -> None:
    """29 of 100 rejected is at most 29%, although 0.29 * 100 is below 29 in floating point."""
    good = np.arange(100.0)
    assert np.sum(good >= MaxFpr(0.29).choose(good, np.array([]))) == 29
    assert np.sum(good < quantile(good, 0.29)) == 29
    assert np.sum(good >= MinRecall(0.29).choose(np.array([-1.0]), good)) == 29


def test_tied_good_scores_fall_together() -> None:
    """If rejecting all of a tie would be too many, max-fpr rejects none of it."""
    threshold = MaxFpr(0.5).choose(np.array([1.0, 5.0, 5.0, 5.0]), np.array([9.0]))
    assert threshold == 7.0


def test_zero_false_rejects_lies_just_above_the_highest_good_score() -> None:
    """Without a higher defective score, max-fpr of 0 is the next float above the highest good score."""
    good = np.array([1.0, 2.0])
    assert MaxFpr(0.0).choose(good, np.array([0.5])) == np.nextafter(2.0, 3.0)
    assert quantile(good, 1.0) == np.nextafter(2.0, 3.0)


def test_full_recall_with_the_lowest_defect_below_everything_is_that_score() -> None:
    """If the lowest score of all must be caught, it is the threshold itself."""
    assert MinRecall(1.0).choose(np.array([2.0]), np.array([1.0, 3.0])) == 1.0


def test_quantile_counts_up() -> None:
    """With ten good images 85% means that nine pass, and the threshold is midway between the ninth and the tenth."""
    assert quantile(np.arange(10.0), 0.85) == 8.5


def test_quantile_passes_all_scores_tied_with_the_last_that_must() -> None:
    """Good scores tied with the k-th lowest pass too."""
    assert quantile(np.array([1.0, 2.0, 2.0, 4.0]), 0.5) == 3.0


def test_neighbouring_floats_are_still_parted() -> None:
    """Between neighbouring float64 scores there is no midpoint, so the higher one is the cut."""
    low, high = 1.0, np.nextafter(1.0, 2.0)
    threshold = MaxF1().choose(np.array([low]), np.array([high]))
    assert low < threshold <= high


def test_one_good_image_is_enough_for_a_quantile() -> None:
    """A single good score gives a threshold just above it."""
    assert Quantile(0.99).choose(np.array([3.0]), np.array([])) == np.nextafter(3.0, 4.0)


def test_equal_scores_are_refused() -> None:
    """When all images have one score, the error says so and names it."""
    with pytest.raises(DatasetError, match=r"all 3 images have the same score, 0\.5: the model cannot tell"):
        MaxF1().choose(np.array([0.5, 0.5]), np.array([0.5]))


@pytest.mark.parametrize("policy", [policy for policy in EXAMPLES if policy.needs_defects], ids=lambda one: one.name)
def test_policies_that_need_defects_name_the_one_that_does_not(policy: Policy) -> None:
    """Without defective images a policy that needs them points to --quantile."""
    with pytest.raises(DatasetError, match=r"needs defective images.*--quantile 99%"):
        policy.choose(np.array([1.0, 2.0]), np.array([]))


def test_good_images_are_needed() -> None:
    """With defective images only, no policy gives a threshold."""
    with pytest.raises(DatasetError, match="2 defective images and no good ones"):
        MaxFpr(0.01).choose(np.array([]), np.array([1.0, 2.0]))


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (MaxF1(), "highest F1"),
        (MaxFpr(0.005), "false rejects at most 0.5%"),
        (MinRecall(0.99), "defects caught at least 99%"),
        (Quantile(0.999), "99.9% of good images pass"),
    ],
)
def test_a_policy_describes_itself_with_its_number(policy: Policy, words: str) -> None:
    """The text in the model file contains the policy's rate."""
    assert policy.describe() == words


def test_rates_print_without_floating_point_dust() -> None:
    """0.07 prints as 7%, not as 7.000000000000001%."""
    assert format_rate(0.07) == "7%"


@pytest.mark.parametrize("policy", EXAMPLES, ids=lambda policy: policy.name)
def test_a_policy_survives_the_model_file(policy: Policy) -> None:
    """The rule in the model file gives the same policy again."""
    assert Policy.from_rule(policy.rule) == policy


@pytest.mark.parametrize("policy", EXAMPLES, ids=lambda policy: policy.name)
def test_a_policy_takes_a_candidate_within_its_interval(policy: Policy) -> None:
    """A threshold is one of the candidates, or the number that was given, and is within its 95% interval."""
    good, defective = draw(3)
    threshold = policy.choose(good, defective)
    assert threshold in candidates(np.concatenate([good, defective])) or threshold == policy.rule.value
    low, high = policy.interval(good, defective) or (threshold, threshold)
    assert low <= threshold <= high


def test_every_rule_has_an_example_in_its_docstring() -> None:
    """The values of a small example are in the class itself, where they run as a test."""
    assert [kind.name for kind in POLICIES if kind.option and f">>> {kind.__name__}(" not in str(kind.__doc__)] == []


@pytest.mark.parametrize(
    ("options", "policy"),
    [
        ({"max_fpr": 0.005, "youden": False, "quantile": None}, MaxFpr(0.005)),
        ({"max_f1": True}, MaxF1()),
        ({"cost": (1.0, 50.0), "prevalence": 0.02}, Cost((1.0, 50.0), 0.02)),
        ({}, None),
    ],
)
def test_options_name_a_policy(options: dict[str, object], policy: Policy | None) -> None:
    """The options of the command, by keyword, give the policy with its numbers."""
    assert Policy.from_options(options) == policy


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_fpr": 0.1, "min_recall": 0.9}, "--max-fpr and --min-recall exclude each other"),
        ({"prevalence": 0.1}, "--prevalence goes with --cost FP:FN"),
        ({"prevalence": 0.1, "max_fpr": 0.1}, "--prevalence goes with --cost FP:FN"),
        ({"max_frp": 0.1}, "'max_frp' is not an option; give one of .*max_fpr"),
        ({"max_fpr": 5}, "max_fpr is 5; a rate is a share of 1"),
        ({"cost": (1, 0)}, "give two numbers above 0"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, object], words: str) -> None:
    """Options that are unknown, clash or are out of range raise a ChoiceError that says which."""
    with pytest.raises(ChoiceError, match=words):
        Policy.from_options(options)


@pytest.mark.parametrize("rule", [Rule("newest"), Rule("max_fpr"), Rule("cost")])
def test_rules_of_a_file_that_cannot_be_read_are_refused(rule: Rule) -> None:
    """A rule that this release does not know, or that lacks its number, is an error of the model file."""
    with pytest.raises(ModelFileError, match=repr(rule.name)):
        Policy.from_rule(rule)


def test_every_option_says_what_it_does() -> None:
    """Each policy but the manual one has an option with a help text."""
    options = Policy.list_options()
    assert [name for name in options if name != "prevalence"] == [kind.name for kind in POLICIES if kind.option]
    assert all(option.help.endswith((".", "]")) for option in options.values())
