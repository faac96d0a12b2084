"""The head's training: defects drawn on good images, forward and backward, step, log and save; after the loop's."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor

from onspect.runtime.errors import TrainingError
from onspect.runtime.files import write_atomically
from onspect.runtime.model_file import parse_dataclass
from onspect.training.augment import augment
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
from onspect.training.config import HeadConfig, TrainConfig
from onspect.training.defects import Defective, draw_defects
from onspect.training.head import Head, answer_of, head_losses
from onspect.training.loop import HeadOutcome, Moment, interruption
from onspect.training.shared_norm import share_norms
from onspect.training.tiles import Images

_DRAWN, _JUDGED = 5, 6  # streams of random numbers under the run's seed, beside the autoencoder's
_WARM_UP = 0.05  # share of the steps in which the learning rate rises
_AVERAGED = 0.996  # what stays of the averaged weights at each step
_SAVES = 20  # over a whole training
_LARGEST_GRADIENT = 5.0
_AHEAD = 4  # batches drawn while others train
_CROPPED = 0.75  # share of the steps that show pieces: cheap looks at many places
_SENSOR_NOISE = 1.0 / 255.0
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
    trainer = _HeadTrainer(record, run, fabric)
    state = trainer.load(run) if resume and (run / HEAD_CHECKPOINT).exists() else _State()
    config = trainer.config
    log = _read_log(run, state.step)
    started = time.perf_counter() - state.seconds
    every = max(1, config.steps // _SAVES)
    with interruption(fabric) as interrupted, ThreadPoolExecutor(1) as pool:
        for batch in _batches(images, record.config, fabric, pool, state.step):
            losses = trainer.step(batch, head_rate(config, state.step))
            state.step += 1
            _check_finite(losses, state.step)
            state.sums = {name: state.sums.get(name, 0.0) + value for name, value in losses.items()}
            if watch is not None and fabric.is_global_zero:
                watch(Moment("head", state.step, config.steps, sum(losses.values())))
            stops = interrupted()
            state.seconds = time.perf_counter() - started
            if state.step % every == 0:
                means = {name: value / every for name, value in state.sums.items()}
                log.append({"step": state.step, **means, "seconds": round(state.seconds, 3)})
                state.sums = {}
            if state.step % every == 0 or stops:
                trainer.save(run, state, log)
            if stops and state.step < config.steps:
                return HeadOutcome("interrupted", state.step, None, state.seconds)
    auroc = trainer.judge(held_out)
    trainer.save_weights(run)
    return HeadOutcome("finished", state.step, auroc, state.seconds)


def head_rate(config: HeadConfig, step: int) -> float:
    """Return the learning rate of a step (from 0): a short rise, then half a cosine down to nothing."""
    rise = max(1.0, _WARM_UP * config.steps)
    if step < rise:
        return config.learning_rate * (step + 1) / rise
    return config.learning_rate * 0.5 * (1.0 + math.cos(math.pi * (step - rise) / max(1.0, config.steps - rise)))


class _HeadTrainer:
    """The head, its optimizer and the running average of its weights, on one device of a run."""

    def __init__(self, record: RunRecord, run: Path, fabric: Fabric) -> None:
        assert record.config.head is not None
        self.config = record.config.head
        self.seed = record.config.seed
        self.fabric = fabric
        encoder, decoder = load_autoencoder(run, record)
        self.encoder, self.decoder = encoder.to(fabric.device), decoder.to(fabric.device)
        channels = record.config.network.channels
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self.plain = Head(self.config, channels)
        if fabric.world_size > 1:
            share_norms(self.plain)
        # convolutions on a CPU train half as fast again with the channels last
        self.plain.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
        self.head = fabric.setup_module(self.plain)
        self.optimizer: Any = fabric.setup_optimizers(
            torch.optim.AdamW(self.head.parameters(), lr=self.config.learning_rate, weight_decay=1e-3)
        )
        self.average = {name: value.clone() for name, value in self.plain.state_dict().items()}
        self.steps = 0

    def step(self, batch: Batch, rate: float) -> dict[str, float]:
        """Train on this device's share of a batch and return the losses, means over all of it."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        image = self._to_device(batch.image)
        reconstruction = _cut(self._reconstruct(image), batch)
        log_odds = self.head(_cut(image, batch), reconstruction).float()
        losses = head_losses(log_odds, self._to_device(batch.mask), self._to_device(batch.weight))
        # each device sees its share of the batch; so weighed, the devices' mean gradient is the batch's
        share = self.fabric.world_size / batch.count
        self.optimizer.zero_grad(set_to_none=True)
        total = sum(losses.values())
        assert isinstance(total, Tensor)
        self.fabric.backward(total.sum() * share)
        self.fabric.clip_gradients(self.head, self.optimizer, max_norm=_LARGEST_GRADIENT)
        self.optimizer.step()
        self._average_weights()
        return {name: self._sum(loss.detach().sum()) / batch.count for name, loss in losses.items()}

    def _average_weights(self) -> None:
        self.steps += 1
        kept = min(_AVERAGED, self.steps / (self.steps + 10))
        with torch.no_grad():
            for name, value in self.plain.state_dict().items():
                if value.dtype.is_floating_point:
                    self.average[name].lerp_(value, 1.0 - kept)
                else:
                    self.average[name].copy_(value)

    def judge(self, images: NDArray[np.uint8]) -> float | None:
        """Return the AUROC of one synthetic defect on each image against the bare images, by the averaged weights."""
        if len(images) < 2:
            return None
        self.plain.load_state_dict(self.average)
        self.plain.eval()
        answers: list[Tensor] = []
        defective = draw_twins(images, self.seed)
        with torch.no_grad():
            for pixels in (images.astype(np.float32) / _WHITE, defective):
                for start in range(0, len(pixels), self.config.batch_size):
                    image = self._to_device(_to_planes(pixels[start : start + self.config.batch_size]))
                    answers.append(answer_of(self.plain(image, self._reconstruct(image)).float()).cpu())
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
        """Write the weights that export takes: the averaged ones."""
        if self.fabric.is_global_zero:
            write_tensors(run / HEAD, {f"head.{name}": value for name, value in self.average.items()})
        self.fabric.barrier()

    def save(self, run: Path, state: _State, log: list[dict[str, Any]]) -> None:
        """Write the checkpoint and the log; every device waits for them."""
        if self.fabric.is_global_zero:
            tensors = {f"head.{name}": value for name, value in self.plain.state_dict().items()}
            tensors |= {f"average.{name}": value for name, value in self.average.items()}
            tensors |= pack_optimizer("optimizer-head", self.optimizer.state_dict())
            notes = {"state": asdict(state)}
            write_tensors(run / HEAD_CHECKPOINT, tensors, notes)
            write_atomically(run / HEAD_LOG, "".join(json.dumps(line) + "\n" for line in log).encode())
        self.fabric.barrier()

    def load(self, run: Path) -> _State:
        """Read the checkpoint into head, average and optimizer and return the rest of it."""
        tensors, notes = read_tensors(run / HEAD_CHECKPOINT)
        try:
            self.plain.load_state_dict(select(tensors, "head"))
            self.average = select(tensors, "average")
            fresh = self.optimizer.state_dict()
            self.optimizer.load_state_dict(unpack_optimizer("optimizer-head", tensors, fresh))
            state = parse_dataclass(_State, notes["state"])
        except (RuntimeError, KeyError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise TrainingError(
                f"{str(run / HEAD_CHECKPOINT)!r} does not fit the run ({reason}); remove it to train the head anew"
            ) from error
        self.steps = state.step
        return state


@dataclass(frozen=True)
class Batch:
    """What one device sees of a step.

    image: whole images, float32 [n, channels, height, width] in 0..1. windows: what of each the head sees, top and
    left, of `size` (height, width). mask, weight: float32 [n, 1, *size], as `Defective` has them. count: of the images
    over all devices.
    """

    image: NDArray[np.float32]
    mask: NDArray[np.float32]
    weight: NDArray[np.float32]
    windows: tuple[tuple[int, int], ...]
    size: tuple[int, int]
    count: int


def _batches(
    images: Images, config: TrainConfig, fabric: Fabric, pool: ThreadPoolExecutor, first: int
) -> Iterator[Batch]:
    """Yield this device's share of each step's batch, drawn ahead in another thread."""
    assert config.head is not None
    share = (fabric.global_rank, fabric.world_size)
    waiting = (pool.submit(draw_batch, images, config, step, *share) for step in range(first, config.head.steps))
    drawn = list(islice(waiting, _AHEAD))
    while drawn:
        batch = drawn.pop(0)
        yield batch.result()
        drawn += islice(waiting, 1)


def draw_batch(images: Images, config: TrainConfig, step: int, rank: int = 0, ranks: int = 1) -> Batch:
    """Draw a step's batch, every other image with defects, or what one of several devices sees of it.

    images are uint8 [n, height, width, channels]. Each image depends on seed, step and its place in the batch alone.
    """
    assert config.head is not None
    height, width = images.shape[1:3]
    count, size = config.head.batch_size, (height, width)
    if config.head.crops and np.random.default_rng([config.seed, _DRAWN, step]).random() < _CROPPED:
        count, size = count * 4, (height // 2, width // 2)
    whole, masks, weights, windows = [], [], [], []
    for place in range(rank, count, ranks):
        random = np.random.default_rng([config.seed, _DRAWN, step, place])
        image = augment(images[random.integers(len(images))], config.augment, random).astype(np.float32) / _WHITE
        top, left = _window(image, size, random)
        piece = image[top : top + size[0], left : left + size[1]]
        drawn = Defective(piece, np.zeros(size, np.float32), np.ones(size, np.float32))
        if place % 2 == 0:
            donor = images[random.integers(len(images))]
            y, x = _window(donor, size, random)
            taken = donor[y : y + size[0], x : x + size[1]].astype(np.float32) / _WHITE
            drawn = draw_defects(piece, taken, random, side=max(height, width))
        # what was painted has no noise of its own, which must not be how it is known
        noisy = drawn.image + random.normal(0.0, _SENSOR_NOISE, piece.shape).astype(np.float32)
        image[top : top + size[0], left : left + size[1]] = noisy
        whole.append(image)
        masks.append(drawn.mask[None])
        weights.append(drawn.weight[None])
        windows.append((top, left))
    return Batch(_to_planes(np.stack(whole)), np.stack(masks), np.stack(weights), tuple(windows), size, count)


def _window(image: NDArray[Any], size: tuple[int, int], random: np.random.Generator) -> tuple[int, int]:
    height, width = image.shape[:2]
    return int(random.integers(height - size[0] + 1)), int(random.integers(width - size[1] + 1))


def draw_twins(images: NDArray[np.uint8], seed: int) -> NDArray[np.float32]:
    """Return a defective twin of each image, uint8 [n, height, width, channels], as float32 in 0..1.

    The twins follow from images and seed alone, and are none of those that a head is trained on.
    """
    twins = []
    for index, image in enumerate(images):
        random = np.random.default_rng([seed, _JUDGED, index])
        donor = images[(index + 1) % len(images)].astype(np.float32) / _WHITE
        twins.append(draw_defects(image.astype(np.float32) / _WHITE, donor, random).image)
    return np.stack(twins)


def _cut(image: Tensor, batch: Batch) -> Tensor:
    """Return what the head sees of whole images."""
    height, width = batch.size
    if batch.size == tuple(image.shape[2:]):
        return image
    pieces = [
        image[index, :, top : top + height, left : left + width] for index, (top, left) in enumerate(batch.windows)
    ]
    return torch.stack(pieces).contiguous(memory_format=torch.channels_last)


def _to_planes(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.ascontiguousarray(np.moveaxis(pixels, -1, 1))


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
