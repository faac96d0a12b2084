"""The head's training: defects drawn on good images, forward and backward, step, log and save; after the loop's."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn import functional as F

from onspect.runtime.cores import available_cores
from onspect.runtime.errors import TrainingError
from onspect.runtime.files import write_atomically
from onspect.runtime.model_file import parse_dataclass
from onspect.training.checkpoint import (
    HEAD,
    HEAD_CHECKPOINT,
    HEAD_LOG,
    RunRecord,
    load_autoencoder,
    pack_optimizer,
    read_tensors,
    select,
    unpack_optimizer,
    write_tensors,
)
from onspect.training.config import TrainConfig
from onspect.training.head import REDUCTION, Head, answer_of, head_losses, median_of
from onspect.training.head_batches import Batch, Mistakes, draw_batch, draw_twins, to_planes
from onspect.training.loop import HeadOutcome, Moment, interruption
from onspect.training.shared_norm import share_norms
from onspect.training.tiles import Images

_LOOKED = 7  # a stream of random numbers under the run's seed, beside those that draw
_WARM_UP = 0.05  # share of the steps in which the learning rate rises
_SAVES = 20  # over the training of both networks
_LARGEST_GRADIENT = 5.0
_AHEAD = 4  # batches drawn while others train
_SETTLED = 64  # batches of whole images over which the norms' statistics are taken at the end
_LOOKED_AT = 1024  # good images at most that mistakes are looked for on, at each save
_USUAL = 256  # good images at most over which what is usual is taken at the end
_WHITE = np.float32(255.0)


@dataclass
class _State:
    step: int = 0
    seconds: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)


def fit_head(
    record: RunRecord,
    images: Images,
    held_out: NDArray[np.uint8],
    run: Path,
    fabric: Fabric,
    *,
    resume: bool = False,
    watch: Callable[[Moment], None] | None = None,
) -> HeadOutcome:
    """Train the head on a run's autoencoder and leave head.safetensors, a checkpoint and head.jsonl in run.

    images, held_out: uint8 [n, height, width, channels]. With resume, goes on from the checkpoint where there is one,
    to the very weights that an uninterrupted run gets on the same machine. The first Ctrl-C (or SIGTERM) saves and
    returns ``interrupted``. Raises TrainingError where the loss is not finite, OutputError where the run cannot be
    written.
    """
    trainer = _HeadTrainer(record, run, fabric, _mean_of(images))
    state = trainer.load(run) if resume and (run / HEAD_CHECKPOINT).exists() else _State()
    config = trainer.config
    log = _read_log(run, state.step)
    started = time.perf_counter() - state.seconds
    every = max(1, config.steps // _SAVES)
    pool = ThreadPoolExecutor(1) if _has_a_core_to_spare(fabric) else nullcontext()
    with interruption(fabric) as interrupted, pool as drawer:
        for batch in _batches(images, record.config, trainer, drawer, state.step, every):
            losses = trainer.step(batch, state.step)
            state.step += 1
            _check_finite(losses, state.step)
            state.sums = {name: state.sums.get(name, 0.0) + value for name, value in losses.items()}
            if watch is not None and fabric.is_global_zero:
                watch(Moment("head", state.step, trainer.last, sum(losses.values())))
            stops = interrupted()
            state.seconds = time.perf_counter() - started
            if state.step % every == 0:
                means = {name: value / every for name, value in state.sums.items()}
                log.append({"step": state.step, **means, "seconds": round(state.seconds, 3)})
                state.sums = {}
            if state.step % every == 0 and state.step < config.steps:
                trainer.find_mistakes(images, state.step)
            if state.step % every == 0 or stops:
                trainer.save(run, state, log)
            if stops and state.step < trainer.last:
                return HeadOutcome("interrupted", state.step, None, state.seconds)
    trainer.settle_norms(images, record.config)
    trainer.learn_usual(images)
    auroc = trainer.judge(held_out)
    trainer.save_weights(run)
    return HeadOutcome("finished", state.step, auroc, state.seconds)


def head_rate(highest: float, step: int, steps: int) -> float:
    """Return the learning rate of a step (from 0): a short rise, then half a cosine down to nothing."""
    rise = max(1.0, _WARM_UP * steps)
    if step < rise:
        return highest * (step + 1) / rise
    return highest * 0.5 * (1.0 + math.cos(math.pi * (step - rise) / max(1.0, steps - rise)))


@dataclass(frozen=True)
class _Learner:
    """One of the head's networks in training. network: on the run's devices. steps: it rests from then on."""

    name: str
    network: Any
    optimizer: Any
    steps: int


class _HeadTrainer:
    """The head and its optimizers, on one device of a run."""

    def __init__(self, record: RunRecord, run: Path, fabric: Fabric, typical: Tensor) -> None:
        assert record.config.head is not None
        self.config = record.config.head
        self.seed = record.config.seed
        self.fabric = fabric
        encoder, decoder = load_autoencoder(run, record)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self.plain = Head(self.config, typical.shape[0], (typical.shape[1], typical.shape[2]))
        self.plain.typical.copy_(typical)
        if fabric.world_size > 1:
            share_norms(self.plain)
        self.encoder, self.decoder = encoder.to(fabric.device), decoder.to(fabric.device)
        for network in (self.encoder, self.decoder, self.plain):
            # convolutions on a CPU run faster with the channels last
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
        self.learners = [self._begin("pair", self.plain.pair, self.config.steps)]
        if self.plain.single is not None:
            self.learners.append(self._begin("single", self.plain.single, self.config.steps + self.config.alone))
        self.plain.to(fabric.device)  # its buffers too
        self.last = max(learner.steps for learner in self.learners)
        self.mistakes: Mistakes | None = None

    def _begin(self, name: str, network: nn.Module, steps: int) -> _Learner:
        on_devices = self.fabric.setup_module(network)
        optimizer = torch.optim.AdamW(on_devices.parameters(), lr=self.config.learning_rate, weight_decay=1e-3)
        return _Learner(name, on_devices, self.fabric.setup_optimizers(optimizer), steps)

    def step(self, batch: Batch, step: int) -> dict[str, float]:
        """Train on this device's share of a batch and return the losses, means over all of it; steps are from 0."""
        mask, weight = self._to_device(batch.mask), self._to_device(batch.weight)
        losses: dict[str, Tensor] = {}
        for learner in self.learners:
            if step < learner.steps:
                places = batch.pair if learner.name == "pair" else batch.single
                found = self._learn(learner, step, self._show(learner.name, batch), mask[places], weight[places], batch)
                losses = {name: loss + losses.get(name, 0.0) for name, loss in found.items()}
        return {name: self._sum(loss) / batch.count for name, loss in losses.items()}

    def _learn(
        self, learner: _Learner, step: int, shown: tuple[Tensor, Tensor], mask: Tensor, weight: Tensor, batch: Batch
    ) -> dict[str, Tensor]:
        """Take one step with one network and return its losses, summed over this device's share of the batch."""
        for group in learner.optimizer.param_groups:
            group["lr"] = head_rate(self.config.learning_rate, step, learner.steps)
        losses = {name: loss.sum() for name, loss in head_losses(learner.network(*shown).float(), mask, weight).items()}
        learner.optimizer.zero_grad(set_to_none=True)
        # each device sees its share of the batch; so weighed, the devices' mean gradient is the batch's
        self.fabric.backward(torch.stack(list(losses.values())).sum() * (self.fabric.world_size / batch.count))
        self.fabric.clip_gradients(learner.network, learner.optimizer, max_norm=_LARGEST_GRADIENT)
        learner.optimizer.step()
        return {name: loss.detach() for name, loss in losses.items()}

    def _show(self, name: str, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return what a network sees: image and reconstruction for the pair's, image and what is typical for the other.

        The latter two are cut out of whole ones, as the former was.
        """
        places = batch.pair if name == "pair" else batch.single
        piece = self._to_device(batch.piece[places])
        if name == "pair":
            return piece, _cut(self._reconstruct(self._to_device(batch.image)), batch, places)
        typical = self.plain.typical.expand(len(piece), -1, -1, -1)
        return self.plain.show_alone(piece, _cut(typical, batch, places))

    def settle_norms(self, images: Images, config: TrainConfig) -> None:
        """Take the norms' statistics anew, over whole images with defects and without.

        Those that training leaves are over its pieces too, which are no images: on parts whose pieces do not look like
        the whole, they make a head that answers to everything.
        """
        whole = dataclasses.replace(config, head=dataclasses.replace(self.config, crops=False))
        norms = [module for module in self.plain.modules() if isinstance(module, nn.BatchNorm2d)]
        share = (self.fabric.global_rank, self.fabric.world_size)
        for number in range(min(_SETTLED, self.config.steps)):
            for norm in norms:
                norm.momentum = 1.0 / (number + 1)  # so that the last has the mean of all
            image = self._to_device(draw_batch(images, whole, self.last + number, *share).image)
            with torch.no_grad():
                self.plain(image, self._reconstruct(image))

    def learn_usual(self, images: Images) -> None:
        """Note what the second network's median over a good image usually is."""
        if self.plain.single is None:
            return
        network = self.plain.single
        network.eval()
        medians = []
        for index in range(0, len(images), -(-len(images) // _USUAL)):
            shown = self.plain.show_alone(self._to_device(_scale(images[index : index + 1])), self.plain.typical[None])
            with torch.no_grad():
                medians.append(median_of(network(*shown)).float().flatten().cpu())
        network.train()
        self.plain.usual.copy_(torch.cat(medians).mean())

    def find_mistakes(self, images: Images, step: int) -> None:
        """Look for what the pair's network takes for a defect on good images, up to `_LOOKED_AT` of them."""
        chosen = np.arange(len(images))
        if len(chosen) > _LOOKED_AT:
            random = np.random.default_rng([self.seed, _LOOKED, step])
            chosen = np.sort(random.choice(len(images), _LOOKED_AT, replace=False))
        answers, places = [], []
        for start in range(0, len(chosen), self.config.batch_size):
            pixels = _scale(images[chosen[start : start + self.config.batch_size]])
            found = F.softplus(self._run(self.plain.pair, self._to_device(pixels)))
            highest, where = found.flatten(1).max(dim=1)
            answers.append(highest.cpu())
            places.append(torch.stack([where // found.shape[3], where % found.shape[3]], dim=1).cpu())
        centres = torch.cat(places).numpy() * REDUCTION + REDUCTION // 2
        self.mistakes = Mistakes(chosen, torch.cat(answers).double().numpy(), centres)

    def _run(self, network: nn.Module, image: Tensor) -> Tensor:
        network.eval()
        with torch.no_grad():
            log_odds: Tensor = network(image, self._reconstruct(image))
        network.train()
        return log_odds.float()

    def judge(self, images: NDArray[np.uint8]) -> float | None:
        """Return the AUROC of one synthetic defect on each image against the bare images."""
        if len(images) < 2:
            return None
        answers: list[Tensor] = []
        for pixels in (images.astype(np.float32) / _WHITE, draw_twins(images, self.seed)):
            for start in range(0, len(pixels), self.config.batch_size):
                image = self._to_device(to_planes(pixels[start : start + self.config.batch_size]))
                answers.append(answer_of(self._run(self.plain, image)).cpu())
        labels = np.repeat([0, 1], len(images))
        return float(roc_auc_score(labels, torch.cat(answers).numpy()))

    def _reconstruct(self, image: Tensor) -> Tensor:
        with torch.no_grad():
            reconstruction: Tensor = self.decoder(self.encoder(image)[0])
        return reconstruction

    def _to_device(self, array: NDArray[np.float32]) -> Tensor:
        tensor: Tensor = self.fabric.to_device(torch.from_numpy(array))
        return tensor.contiguous(memory_format=torch.channels_last)

    def _sum(self, value: Tensor) -> float:
        total = self.fabric.all_reduce(value, reduce_op="sum")
        assert isinstance(total, Tensor)
        return float(total)

    def save_weights(self, run: Path) -> None:
        """Write the weights that export takes."""
        if self.fabric.is_global_zero:
            write_tensors(run / HEAD, {f"head.{name}": value for name, value in self.plain.state_dict().items()})
        self.fabric.barrier()

    def save(self, run: Path, state: _State, log: list[dict[str, Any]]) -> None:
        """Write the checkpoint and the log; every device waits for them."""
        if self.fabric.is_global_zero:
            tensors = {f"head.{name}": value for name, value in self.plain.state_dict().items()}
            for learner in self.learners:
                tensors |= pack_optimizer(f"optimizer-{learner.name}", learner.optimizer.state_dict())
            if self.mistakes is not None:
                arrays = dataclasses.asdict(self.mistakes)
                tensors |= {f"mistakes.{name}": torch.from_numpy(array) for name, array in arrays.items()}
            notes = {"state": asdict(state)}
            write_tensors(run / HEAD_CHECKPOINT, tensors, notes)
            write_atomically(run / HEAD_LOG, "".join(json.dumps(line) + "\n" for line in log).encode())
        self.fabric.barrier()

    def load(self, run: Path) -> _State:
        """Read the checkpoint into head, mistakes and optimizers and return the rest of it."""
        tensors, notes = read_tensors(run / HEAD_CHECKPOINT)
        try:
            self.plain.load_state_dict(select(tensors, "head"))
            mistakes = {name: tensor.numpy() for name, tensor in select(tensors, "mistakes").items()}
            self.mistakes = Mistakes(**mistakes) if mistakes else None
            for learner in self.learners:
                name, fresh = f"optimizer-{learner.name}", learner.optimizer.state_dict()
                learner.optimizer.load_state_dict(unpack_optimizer(name, tensors, fresh))
            state = parse_dataclass(_State, notes["state"])
        except (RuntimeError, KeyError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise TrainingError(
                f"{str(run / HEAD_CHECKPOINT)!r} does not fit the run ({reason}); remove it to train the head anew"
            ) from error
        return state


def _has_a_core_to_spare(fabric: Fabric) -> bool:
    """Tell whether drawing in another thread hastens a step; where two cores compute it only gets in their way."""
    return fabric.device.type != "cpu" or available_cores() > min(2, torch.get_num_threads())


def _batches(
    images: Images, config: TrainConfig, trainer: _HeadTrainer, drawer: Executor | None, first: int, every: int
) -> Iterator[Batch]:
    """Yield this device's share of each step's batch; with a drawer they are drawn ahead, as far as the next mistakes.

    Once the network that is shown them rests, there are none.
    """
    assert config.head is not None
    share = (trainer.fabric.global_rank, trainer.fabric.world_size)
    while first < trainer.last:
        compares = first < config.head.steps
        last = min(first - first % every + every, config.head.steps if compares else trainer.last)
        mistakes = trainer.mistakes if compares else None
        draw = partial(draw_batch, images, config, rank=share[0], ranks=share[1], mistakes=mistakes, compares=compares)
        yield from map(draw, range(first, last)) if drawer is None else _ahead(drawer, draw, range(first, last))
        first = last


def _ahead(drawer: Executor, draw: Callable[[int], Batch], steps: Iterable[int]) -> Iterator[Batch]:
    waiting = (drawer.submit(draw, step) for step in steps)
    drawn = list(islice(waiting, _AHEAD))
    while drawn:
        batch = drawn.pop(0)
        yield batch.result()
        drawn += islice(waiting, 1)


def _cut(images: Tensor, batch: Batch, places: NDArray[np.int64]) -> Tensor:
    """Return what a network sees of images that stand at those places of a batch."""
    height, width = batch.size
    pieces = [
        image[:, top : top + height, left : left + width]
        for image, (top, left) in zip(images, (batch.windows[place] for place in places), strict=True)
    ]
    return torch.stack(pieces).contiguous(memory_format=torch.channels_last)


def _mean_of(images: Images) -> Tensor:
    """Return what is typical, float32 [channels, height, width] in 0..1: the mean of images or of all their tiles."""
    total = sum(images[index].astype(np.int64) for index in range(len(images)))
    return torch.from_numpy(to_planes((np.asarray(total) / (255.0 * len(images))).astype(np.float32)[None])[0])


def _scale(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return images uint8 [n, height, width, channels] as planes in 0..1."""
    return to_planes(images.astype(np.float32) / _WHITE)


def _check_finite(losses: dict[str, float], step: int) -> None:
    for name, value in losses.items():
        if not math.isfinite(value):
            raise TrainingError(
                f"training diverged: the head's {name} loss is {value} in step {step}; train again with another "
                "--seed, and report this with the log"
            )


def _read_log(run: Path, steps: int) -> list[dict[str, Any]]:
    if steps == 0 or not (run / HEAD_LOG).exists():
        return []
    try:
        lines = [json.loads(line) for line in (run / HEAD_LOG).read_text(encoding="utf-8").splitlines()]
        return [line for line in lines if line["step"] <= steps]
    except (ValueError, TypeError, KeyError) as error:
        raise TrainingError(f"{str(run / HEAD_LOG)!r} is damaged ({error}); repair its lines, or remove it") from error
