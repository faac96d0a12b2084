import dataclasses
import json
import signal
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from onspect.runtime.errors import ChoiceError, TrainingError
from onspect.training import config as config_module
from onspect.training import head as head_module
from onspect.training import head_loop, session
from onspect.training.checkpoint import load_trained, read_record
from onspect.training.config import HeadConfig, TrainConfig, design_head, design_network
from onspect.training.head import Head, answer_of, head_losses
from onspect.training.head_batches import Mistakes, draw_batch
from onspect.training.head_loop import head_rate
from onspect.training.loop import HeadOutcome, Moment

CPU = session.Devices(accelerator="cpu")
SMALL = HeadConfig((4, 6, 8, 8), 6, steps=10, batch_size=4, learning_rate=1e-3, crops=True, single=(4, 4, 6, 6))


@pytest.fixture
def plates(tmp_path: Path) -> Path:
    """A flat folder of 12 good mono images of 64 x 48 pixels, smooth with a little noise."""
    folder = tmp_path / "plates"
    folder.mkdir()
    for seed in range(12):
        random = np.random.default_rng(seed)
        image = 90 + 30 * np.linspace(0, 1, 64)[None] + random.normal(0, 2, (48, 64))
        cv2.imwrite(str(folder / f"{seed:02d}.png"), image.clip(0, 255).astype(np.uint8))
    return folder


def options(**changes: Any) -> session.TrainOptions:
    return session.TrainOptions(**({"preset": "fast", "epochs": 1, "head_steps": 6, "holdout": 0.25} | changes))


def config(head: HeadConfig = SMALL) -> TrainConfig:
    network = design_network("cae", "fast", height=64, width=64, channels=1, has_head=True)
    return TrainConfig(network, "fast", 1, 4, "adam", 1e-3, "cosine", (), 0.0, 0, 3, head=head)


def test_the_map_has_a_quarter_of_the_resolution() -> None:
    """Height and width are divided by four, rounded up, whatever they are."""
    for height, width in ((64, 64), (50, 70), (33, 47)):
        head = Head(SMALL, 3, (height, width)).eval()
        image = torch.rand(2, 3, height, width)
        assert head(image, image).shape == (2, 1, -(-height // 4), -(-width // 4))


def test_the_head_sees_the_reconstruction() -> None:
    """The same image beside another reconstruction gets another map."""
    head = Head(SMALL, 1, (32, 32)).eval()
    image = torch.rand(1, 1, 32, 32)
    assert not torch.equal(head(image, image), head(image, 1 - image))


def test_losses_fall_where_the_map_is_right() -> None:
    """High log-odds on the defect and low ones elsewhere cost less than the reverse, for each loss."""
    mask = torch.zeros(1, 1, 32, 32)
    mask[:, :, 8:16, 8:16] = 1
    right = torch.where(torch.nn.functional.max_pool2d(mask, 4) > 0, 5.0, -5.0)
    good = head_losses(right, mask, torch.ones_like(mask))
    bad = head_losses(-right, mask, torch.ones_like(mask))
    assert good["focal"] < bad["focal"]
    assert good["dice"] < 0.1 * bad["dice"]
    for sign, better in ((1.0, True), (-1.0, False)):  # the image's own answer, on a good image
        empty = head_losses(sign * 5.0 * torch.ones(1, 1, 8, 8), torch.zeros_like(mask), torch.ones_like(mask))
        assert (empty["image"] > 0.1) == better


def test_a_heavier_defect_costs_more() -> None:
    """A missed defect's focal loss grows with its weight; a good place's does not."""
    mask = torch.zeros(1, 1, 32, 32)
    mask[:, :, 8:16, 8:16] = 1
    missed = torch.full((1, 1, 8, 8), -3.0)
    light, heavy = (head_losses(missed, mask, torch.full_like(mask, weight))["focal"] for weight in (1.0, 4.0))
    assert heavy > 3 * light


def test_covering_half_of_a_defect_costs_the_same_whatever_its_size() -> None:
    """The overlap's loss sees a large defect and a small one alike, and asks nothing of a good image."""
    costs = []
    for size in (8, 32):
        mask = torch.zeros(1, 1, 64, 64)
        mask[:, :, :size, :size] = 1
        half = torch.full((1, 1, 16, 16), -9.0)
        half[:, :, : size // 4, : size // 8] = 9.0
        costs.append(float(head_losses(half, mask, torch.ones_like(mask))["dice"]))
    assert costs[0] == pytest.approx(costs[1], rel=0.2)
    none = torch.zeros(1, 1, 64, 64)
    assert head_losses(torch.zeros(1, 1, 16, 16), none, torch.ones_like(none))["dice"] == 0


def test_the_head_is_a_mean_of_two_networks() -> None:
    """One sees image and reconstruction, the other image and typical one; or there is only the first."""
    torch.manual_seed(0)
    head = Head(SMALL, 1, (64, 64)).eval()
    assert head.single is not None
    torch.nn.init.uniform_(head.typical)
    head.usual.fill_(-3.0)
    image, reconstruction = torch.rand(2, 2, 1, 64, 64).unbind()
    alone = head.single(image, head.typical.expand(2, 1, 64, 64))
    assert not torch.equal(alone, head.single(image, image))
    medians = alone.flatten(1).median(dim=1).values.reshape(2, 1, 1, 1)
    assert medians[0] != medians[1]
    compared = head.pair(image, reconstruction)
    good = 1.0 - answer_of(compared).sigmoid()[:, None, None, None]
    expected = 0.5 * compared + 0.5 * (alone - good * (medians + 3.0))
    torch.testing.assert_close(head(image, reconstruction), expected)
    bare = Head(dataclasses.replace(SMALL, single=()), 1, (64, 64)).eval()
    assert bare.single is None
    assert torch.equal(bare(image, reconstruction), bare.pair(image, reconstruction))


@pytest.mark.parametrize(("answer", "kept"), [(-30.0, 0.0), (30.0, 1.0)])
def test_the_level_counts_where_the_image_is_defective(answer: float, kept: float) -> None:
    """By how much more the second network suspects the whole image is kept for a defective one, gone for a good one."""
    torch.manual_seed(0)
    head = Head(SMALL, 1, (64, 64)).eval()
    assert head.single is not None
    image = torch.rand(1, 1, 64, 64)
    for network in (head.pair, head.single):
        torch.nn.init.zeros_(network.output.weight)
    assert head.pair.output.bias is not None
    assert head.single.output.bias is not None
    torch.nn.init.constant_(head.pair.output.bias, answer)
    torch.nn.init.constant_(head.single.output.bias, 1.0)
    head.usual.fill_(-3.0)
    assert head(image, image).mean().item() == pytest.approx(0.5 * answer + 0.5 * (-3.0 + kept * 4.0), abs=1e-4)


@pytest.mark.parametrize(("shape", "tolerance"), [((40, 40), 0.0), ((90, 130), 0.1)])
def test_the_median_is_each_images_own(shape: tuple[int, int], tolerance: float) -> None:
    """It is the lower median of all places, and close to it where only some of very many are looked at."""
    torch.manual_seed(0)
    log_odds = torch.randn(2, 1, *shape) + torch.tensor([1.0, -3.0])[:, None, None, None]
    expected = log_odds.flatten(1).median(dim=1).values
    found = head_module.median_of(log_odds)
    assert found.shape == (2, 1, 1, 1)
    torch.testing.assert_close(found.flatten(), expected, atol=tolerance, rtol=0.0)


def test_the_second_network_sees_a_smaller_image() -> None:
    """With a reduction of 2 its map is of half the size; enlarged, it has its share in the whole map, however odd."""
    torch.manual_seed(0)
    head = Head(dataclasses.replace(SMALL, reduction=2), 1, (98, 67)).eval()
    assert head.single is not None
    image = torch.rand(1, 1, 98, 67)
    assert head.single(*head.show_alone(image, image)).shape == (1, 1, 13, 9)
    assert head(image, image).shape == head.pair(image, image).shape == (1, 1, 25, 17)


def test_a_place_knows_the_whole_image() -> None:
    """What lies beyond the reach of the convolutions has a say in a corner's log-odds."""
    torch.manual_seed(0)
    head = Head(HeadConfig((8, 16, 16, 16), 16, 1, 1, 1e-3, crops=False), 1, (256, 256)).eval()
    image = torch.rand(1, 1, 256, 256, requires_grad=True)
    head(image, image)[0, 0, 0, 0].backward()
    assert image.grad is not None
    assert image.grad[:, :, 192:, 192:].abs().max() > 0


def test_the_answer_is_the_mean_of_the_highest_places() -> None:
    """Four places at 2 and the rest at -9 make 2."""
    places = torch.full((1, 1, 8, 8), -9.0)
    places[0, 0, 0, :4] = 2.0
    assert answer_of(places).tolist() == [2.0]


def test_the_rate_rises_and_falls() -> None:
    """It starts low, is full after a twentieth of the steps, and ends near nothing."""
    assert head_rate(1.0, 0, 100) == pytest.approx(0.2)
    assert head_rate(1.0, 5, 100) == pytest.approx(1.0)
    assert head_rate(1.0, 99, 100) < 0.001


def test_a_batch_is_half_defective_and_each_image_its_own() -> None:
    """Every other image has a mask, pieces are four times as many, and ranks see parts of the same batch."""
    images = np.random.default_rng(0).integers(90, 140, (6, 64, 64, 1), dtype=np.uint8)
    seen = set()
    for step in range(12):
        batch = draw_batch(images, config(), step)
        seen.add(batch.size)
        assert batch.count == (4 if batch.size == (64, 64) else 16) == len(batch.image)
        assert batch.image.shape[1:] == (1, 64, 64)
        assert batch.piece.shape == (batch.count, 1, *batch.size)
        assert batch.mask.shape == (batch.count, 1, *batch.size)
        assert not batch.mask[1::2].any()
        assert batch.mask[::2].any()
        second = draw_batch(images, config(), step, 1, 2)
        assert np.array_equal(second.image, batch.image[1::2])
        assert np.array_equal(second.piece, batch.piece[1::2])
        assert second.count == batch.count
    assert seen == {(64, 64), (32, 32)}


def test_nothing_but_the_defects_is_changed() -> None:
    """A good image of a batch is one of the run's to the bit; a defective one differs from one in its piece alone."""
    images = np.random.default_rng(0).integers(90, 140, (6, 64, 64, 1), dtype=np.uint8)
    known = np.moveaxis(images.astype(np.float32) / np.float32(255), -1, 1)
    for step in range(6):
        batch = draw_batch(images, dataclasses.replace(config(), augment=()), step)
        drawn = zip(batch.image, batch.piece, batch.mask, batch.windows, strict=True)
        for image, piece, mask, (top, left) in drawn:
            assert np.array_equal(piece, image[:, top : top + batch.size[0], left : left + batch.size[1]])
            same = np.stack([image == good for good in known])
            changed = ~same[same.mean(axis=(1, 2, 3)).argmax()][0]
            assert changed.any() == mask.any()
            changed[top : top + batch.size[0], left : left + batch.size[1]] = False
            assert not changed.any()


def test_mistakes_are_shown_to_one_network() -> None:
    """About half of the good images are replaced by mistakes for the pair's network; the other sees what it would."""
    images = np.full((6, 64, 64, 1), 60, np.uint8)
    images[4] = 200
    mistakes = Mistakes(np.array([4]), np.array([2.0]), np.array([[9, 50]]))
    replaced = 0
    for step in range(12):
        batch = draw_batch(images, config(), step, mistakes=mistakes)
        plain = draw_batch(images, config(), step)
        assert np.array_equal(batch.piece[batch.single], plain.piece)
        assert np.array_equal(batch.mask[batch.single], plain.mask)
        assert len(batch.pair) == len(batch.single) == batch.count
        shown = np.setdiff1d(batch.pair, batch.single)
        assert np.array_equal(np.setdiff1d(np.arange(len(batch.piece)), batch.single), shown)
        assert not batch.mask[shown].any()
        assert (batch.piece[shown].mean(axis=(1, 2, 3)) > 0.7).all()
        replaced += len(shown)
        for place in shown:
            (top, left), (height, width) = batch.windows[place], batch.size
            assert top <= 9 < top + height
            assert left <= 50 < left + width
            whole = batch.image[batch.pair.tolist().index(place)]
            assert np.array_equal(batch.piece[place], whole[:, top : top + height, left : left + width])
    good = sum(draw_batch(images, config(), step).count for step in range(12)) // 2
    assert 0.3 * good < replaced < 0.7 * good


def test_where_the_pair_rests_no_whole_images_are_kept() -> None:
    """The other network sees what it would have seen, and there is nothing to reconstruct."""
    images = np.random.default_rng(0).integers(90, 140, (6, 64, 64, 1), dtype=np.uint8)
    for step in range(6):
        batch, alone = draw_batch(images, config(), step), draw_batch(images, config(), step, compares=False)
        assert np.array_equal(alone.piece, batch.piece)
        assert np.array_equal(alone.mask, batch.mask)
        assert np.array_equal(alone.single, batch.single)
        assert alone.pair.size == alone.image.size == 0


def test_the_head_is_the_same_drawn_ahead_or_not(plates: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether another thread draws its batches changes no weight, with mistakes and further steps of one network."""
    weights = []
    monkeypatch.setattr("onspect.training.config._ALONE", {"fast": 0.5})
    for ahead in (True, False):
        monkeypatch.setattr(head_loop, "_has_a_core_to_spare", lambda _, ahead=ahead: ahead)
        session.train(plates, tmp_path / str(ahead), options(), devices=CPU)
        weights.append(load_file(tmp_path / str(ahead) / "head.safetensors"))
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


@pytest.mark.parametrize(("cores", "threads", "spare"), [(1, 1, False), (2, 2, False), (2, 1, True), (8, 8, True)])
def test_two_cores_that_compute_draw_themselves(
    monkeypatch: pytest.MonkeyPatch, cores: int, threads: int, *, spare: bool
) -> None:
    """Where there are more cores than two, or one computes and another does not, a thread draws ahead."""
    monkeypatch.setattr(head_loop, "available_cores", lambda: cores)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert head_loop._has_a_core_to_spare(session._start_fabric(CPU)) is spare


def test_the_worst_mistakes_are_shown_most() -> None:
    """An image is drawn as often as its answer is high, together with its own place."""
    mistakes = Mistakes(np.array([3, 8]), np.array([0.5, 1.5]), np.array([[1, 2], [30, 40]]))
    random = np.random.default_rng(0)
    drawn = [mistakes.draw(random) for _ in range(400)]
    assert set(drawn) == {(3, (1, 2)), (8, (30, 40))}
    assert 260 < sum(index == 8 for index, _ in drawn) < 340


def test_mistakes_lie_where_the_log_odds_are_highest(
    plates: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every good image is looked at; its place is the centre of the head's map's highest, in pixels."""
    run = tmp_path / "run"
    session.train(plates, run, options(), devices=CPU)
    trainer = head_loop._HeadTrainer(read_record(run), run, session._start_fabric(CPU), torch.zeros(1, 48, 64))

    def compare(image: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        log_odds = torch.full((len(image), 1, 12, 16), -4.0)
        log_odds[:, 0, 5, 7] = 1.0
        return log_odds

    monkeypatch.setattr(trainer.plain.pair, "forward", compare)
    trainer.find_mistakes(np.zeros((9, 48, 64, 1), np.uint8), 1)
    assert trainer.mistakes is not None
    assert trainer.mistakes.images.tolist() == list(range(9))
    assert trainer.mistakes.places.tolist() == [[22, 30]] * 9
    assert trainer.mistakes.answers == pytest.approx(np.log1p(np.e))
    monkeypatch.setattr(head_loop, "_LOOKED_AT", 4)
    trainer.find_mistakes(np.zeros((9, 48, 64, 1), np.uint8), 2)
    assert len(set(trainer.mistakes.images.tolist())) == 4


@pytest.mark.parametrize(
    ("preset", "size", "stages"), [("paper", (28, 28), None), ("fast", (24, 24), None), ("balanced", (256, 256), 5)]
)
def test_heads_for_presets(preset: str, size: tuple[int, int], stages: int | None) -> None:
    """The paper's networks and very small images get no head, others one as deep as the size has room for."""
    head = design_head(preset, *size)
    assert (None if head is None else len(head.filters)) == stages


def test_the_preset_for_maps_leans_on_the_network_that_points_better() -> None:
    """Preset accurate trains it on longest, however many steps are asked for, and gives it the larger share."""
    balanced, accurate = (design_head(preset, 256, 256, 100) for preset in ("balanced", "accurate"))
    assert balanced is not None
    assert accurate is not None
    assert (balanced.steps, balanced.alone, balanced.share) == (100, 100, 0.5)
    assert (accurate.steps, accurate.alone, accurate.share) == (100, 400, 0.3)


def test_no_steps_no_head() -> None:
    """Asking for 0 steps leaves the bare autoencoder at the working size; with a head it works at half of it."""
    assert design_head("balanced", 256, 256, 0) is None
    sizes = {"height": 256, "width": 256, "channels": 1}
    assert design_network("cae", "balanced", **sizes).reduction == 1
    assert design_network("cae", "balanced", **sizes, has_head=True).reduction == 2
    assert design_network("cae", "balanced", **(sizes | {"width": 255}), has_head=True).reduction == 1


def test_a_head_that_has_no_room_is_refused() -> None:
    """Steps asked for at a size too small are a mistake, told with the least size."""
    with pytest.raises(ChoiceError, match=r"24x20 is too small for a head; give a --size of at least 32x32"):
        design_head("fast", 20, 24, 100)


def test_training_leaves_a_head(plates: Path, tmp_path: Path) -> None:
    """The run holds head and log, the outcome its AUROC on synthetic defects, and the watcher saw both phases."""
    moments: list[Moment] = []
    watchers = session.Watchers(step=moments.append)
    outcome = session.train(plates, tmp_path / "run", options(), devices=CPU, watchers=watchers)
    assert outcome.head is not None
    assert outcome.head.reason == "finished"
    assert 0.0 <= (outcome.head.auroc or -1) <= 1.0
    assert [moment.step for moment in moments if moment.phase == "head"] == list(range(1, 7))
    lines = [json.loads(line) for line in (tmp_path / "run" / "head.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 6
    assert load_trained(tmp_path / "run").head is not None


@pytest.mark.parametrize("stop_at", [1, 4, 7])
def test_resume_gives_the_uninterrupted_head(
    plates: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    """A head's training that was stopped goes on to the very weights of one that was not, whichever network trains."""
    monkeypatch.setitem(config_module._ALONE, "fast", 0.5)
    session.train(plates, tmp_path / "whole", options(), devices=CPU)

    def stop(moment: Moment) -> None:
        if moment.phase == "head" and moment.step == stop_at:
            signal.raise_signal(signal.SIGTERM)

    first = session.train(plates, tmp_path / "halved", options(), devices=CPU, watchers=session.Watchers(step=stop))
    assert first.reason == "interrupted"
    assert first.head == HeadOutcome("interrupted", stop_at, None, first.head.seconds if first.head else 0.0)
    with pytest.raises(TrainingError, match="head's training was not finished; go on with"):
        load_trained(tmp_path / "halved")
    assert session.resume(tmp_path / "halved", devices=CPU).reason == "finished"
    whole, halved = (load_file(tmp_path / name / "head.safetensors") for name in ("whole", "halved"))
    assert whole.keys() == halved.keys()
    assert all(torch.equal(whole[name], halved[name]) for name in whole)


def test_one_network_rests_while_the_other_goes_on(
    plates: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Further steps of the network that sees no reconstruction leave the other as it was, and train it longer."""
    monkeypatch.setattr(head_loop, "_SETTLED", 0)  # the norms' statistics are taken over images of later steps
    session.train(plates, tmp_path / "equal", options(), devices=CPU)
    monkeypatch.setitem(config_module._ALONE, "fast", 0.5)
    outcome = session.train(plates, tmp_path / "further", options(), devices=CPU)
    assert outcome.head is not None
    assert outcome.head.step == 9
    equal, further = (load_file(tmp_path / name / "head.safetensors") for name in ("equal", "further"))
    for name in equal:
        if name.startswith("head.pair."):
            assert torch.equal(equal[name], further[name])
    assert not torch.equal(equal["head.single.output.weight"], further["head.single.output.weight"])


def test_what_is_typical_and_usual_is_learnt_from_the_good_images(plates: Path, tmp_path: Path) -> None:
    """The head keeps the mean of the images it was trained on, and the mean of their medians in its second network."""
    run = tmp_path / "run"
    session.train(plates, run, options(), devices=CPU)
    record = read_record(run)
    images, _ = session.split_as_recorded(session.read_training_set(run, record), run, record)
    planes = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255.0
    head = load_trained(run).head
    assert head is not None
    assert head.single is not None
    torch.testing.assert_close(head.typical, planes.mean(dim=0))
    with torch.no_grad():
        alone = head.single(*head.show_alone(planes, head.typical[None]))
    medians = alone.flatten(1).median(dim=1).values
    assert head.usual.item() == pytest.approx(medians.mean().item(), abs=1e-4)


def test_the_norms_know_whole_images(plates: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many pieces were trained on, what the head's norms expect is the mean over whole images."""
    monkeypatch.setattr("onspect.training.config._SMALLEST_CROPPED", 32)
    run = tmp_path / "run"
    session.train(plates, run, options(), devices=CPU)
    record = read_record(run)
    assert record.config.head is not None
    assert record.config.head.crops
    images, _ = session.split_as_recorded(session.read_training_set(run, record), run, record)
    whole = dataclasses.replace(record.config, head=dataclasses.replace(record.config.head, crops=False))
    weights = load_file(run / "head.safetensors")
    means = []
    for step in range(6, 12):
        drawn = torch.from_numpy(draw_batch(images, whole, step).image)
        shown = torch.cat([drawn, weights["head.typical"].expand_as(drawn)], dim=1)
        features = torch.nn.functional.conv2d(shown, weights["head.single.stem.0.weight"], stride=2, padding=2)
        means.append(features.mean(dim=(0, 2, 3)))
    found = weights["head.single.stem.1.running_mean"]
    torch.testing.assert_close(found, torch.stack(means).mean(dim=0), atol=1e-5, rtol=1e-3)


def test_the_head_repeats_with_its_seed(plates: Path, tmp_path: Path) -> None:
    """The same seed gives the same head, another seed another."""
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        session.train(plates, tmp_path / name, options(seed=seed, head_steps=2), devices=CPU)
    one, same, other = (load_file(tmp_path / name / "head.safetensors") for name in "abc")
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_another_head_s_checkpoint_is_refused(plates: Path, tmp_path: Path) -> None:
    """A head's checkpoint that does not fit the run is told, with the cure."""
    for name, channels in (("mono", 1), ("colour", 3)):
        session.train(plates, tmp_path / name, options(channels=channels), devices=CPU)
    (tmp_path / "colour" / "head-checkpoint.safetensors").replace(tmp_path / "mono" / "head-checkpoint.safetensors")
    with pytest.raises(TrainingError, match=r"does not fit the run .*remove it to train the head anew"):
        session.resume(tmp_path / "mono", devices=CPU)


def test_the_head_learns(plates: Path, tmp_path: Path) -> None:
    """After a short training the head tells synthetic defects from good images that it has not seen."""
    outcome = session.train(plates, tmp_path / "run", options(head_steps=150), devices=CPU)
    assert outcome.head is not None
    assert outcome.head.auroc is not None
    assert outcome.head.auroc > 0.8
