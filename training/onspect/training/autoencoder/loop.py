"""The training loop: learning rate, forward and backward pass, step, log, evaluation and checkpoint."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray

from onspect.runtime.atomic import write_atomically
from onspect.runtime.errors import TrainingError
from onspect.training.augment import augment
from onspect.training.autoencoder.networks import Decoder, Encoder
from onspect.training.autoencoder.trainer import State, Trainer
from onspect.training.checkpoint import CHECKPOINT, LOG, RunRecord
from onspect.training.config import TrainConfig
from onspect.training.interruption import stop_signals
from onspect.training.tiles import Batch, Images

_ORDER, _AUGMENT = 1, 3  # numbers of the random streams under the run's seed; the trainer has another


@dataclass(frozen=True)
class TrainingProgress:
    """Progress of training after a step. Both losses are mean squared errors (Eq. 2) of values from 0 to 1."""

    step: int
    """Steps that are done, 1 or more."""
    steps: int
    """Steps of the whole run."""
    loss: float
    """Loss of the latest batch."""
    epoch: int
    """The current epoch, from 1."""
    epochs: int
    """Epochs of the whole run."""
    held_out: float | None
    """Loss of the held-out images after the latest epoch; None before the first evaluation and without such images."""


@dataclass(frozen=True)
class Outcome:
    """How training ended."""

    reason: str
    """``finished``, ``stopped early`` or ``interrupted``."""
    epoch: int
    """Number of complete epochs."""
    best_epoch: int
    """The epoch whose weights are kept, from 1."""
    best_loss: float
    """Mean squared error of the held-out images at `best_epoch`, or of the training images if none are held out."""
    held_out: int
    """Number of held-out images, tiles or places."""
    seconds: float
    """Duration of training in seconds, over all sessions of the run."""


def fit(
    record: RunRecord,
    images: Images,
    held_out: Images,
    run: Path,
    fabric: Fabric,
    *,
    resume: bool = False,
    watch: Callable[[TrainingProgress], None] | None = None,
    after_epoch: Callable[[int, Encoder, Decoder], None] | None = None,
) -> Outcome:
    """Train as the record says, and write weights, checkpoint and log into the run's folder.

    ``weights.safetensors`` has the weights of the epoch with the least loss on `held_out`. The first Ctrl-C or SIGTERM
    saves a checkpoint and ends training; a second one stops at once.

    Parameters
    ----------
    record
        Configuration and data of the run.
    images, held_out
        Images to train on and images to evaluate: uint8 [n, height, width, channels], their tiles, or places of images,
        float16 [n, 1, 1, channels].
    run
        Folder of the run.
    fabric
        Devices and precision.
    resume
        Continue from the checkpoint. On the same machine the weights equal those of an uninterrupted run.
    watch
        Called after every step, on the first device only.
    after_epoch
        Called after every epoch with its number, the encoder and the decoder, on the first device only.

    Returns
    -------
    Outcome
        Why training ended, and the best epoch.

    Raises
    ------
    TrainingError
        If the loss is not finite, or the checkpoint does not match the run. The last checkpoint is kept.
    OutputError
        If the run cannot be written.
    """
    trainer = Trainer(record, fabric)
    state = trainer.load(run) if resume else State()
    config = record.config
    if not resume:
        _write_log(fabric, run, [])
    log = _read_log(run, state.epoch)
    steps = math.ceil(len(images) / config.batch_size)
    total = steps * config.epochs
    watched = held_out if len(held_out) else images[: config.batch_size]
    started = time.perf_counter() - state.seconds
    with interruption(fabric) as interrupted:
        while state.epoch < config.epochs and not _patience_is_spent(state, config):
            order = np.random.default_rng([config.seed, _ORDER, state.epoch]).permutation(len(images))
            for step in range(state.step, steps):
                rate = learning_rate(config, state.epoch * steps + step, total)
                chosen = order[step * config.batch_size : (step + 1) * config.batch_size]
                batch = _prepare(images, chosen, config, state.epoch)
                losses = trainer.step(batch, state.epoch, step, rate)
                _check_finite(losses, state.epoch, step + 1, rate, run)
                for name, value in losses.items():
                    state.sums[name] = state.sums.get(name, 0.0) + value * len(chosen)
                state.step = step + 1
                if watch is not None and fabric.is_global_zero:
                    loss, known = losses["reconstruction"] / images[0].size, log[-1]["held_out"] if log else None
                    done = state.epoch * steps + state.step
                    watch(TrainingProgress(done, total, loss, state.epoch + 1, config.epochs, known))
                if interrupted():
                    state.seconds = time.perf_counter() - started
                    trainer.save(run, state)
                    return _outcome("interrupted", state, held_out)
            state.seconds = time.perf_counter() - started
            rate = learning_rate(config, (state.epoch + 1) * steps - 1, total)
            error = trainer.evaluate(watched)
            _check_finite({"held-out" if len(held_out) else "training": error}, state.epoch, state.step, rate, run)
            log.append(_close_epoch(state, images, error if len(held_out) else None, rate))
            loss = log[-1]["held_out"] if len(held_out) else log[-1]["loss"]
            if loss < state.best_loss or not len(held_out):  # without held-out images, the last weights are kept
                state.best_epoch, state.best_loss = state.epoch, loss
                trainer.save_weights(run)
            _write_log(fabric, run, log)
            trainer.save(run, state)
            if after_epoch is not None and fabric.is_global_zero:
                after_epoch(state.epoch, trainer.plain_encoder, trainer.plain_decoder)
    return _outcome("finished" if state.epoch == config.epochs else "stopped early", state, held_out)


def learning_rate(config: TrainConfig, step: int, total: int) -> float:
    """Return the learning rate of a step: constant, or half a cosine from the full rate to 1% of it.

    Parameters
    ----------
    config
        Configuration of the run.
    step
        The step, from 0.
    total
        Steps of the whole run.

    Returns
    -------
    float
        The learning rate, above 0.
    """
    if config.schedule == "constant":
        return config.learning_rate
    return config.learning_rate * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * step / total)))


def _prepare(images: Images, chosen: NDArray[np.int64], config: TrainConfig, epoch: int) -> Batch:
    if not config.augment:
        return images[chosen]
    changed = [
        augment(images[index], config.augment, np.random.default_rng([config.seed, _AUGMENT, epoch, index]))
        for index in chosen
    ]
    return np.stack(changed)


def _check_finite(losses: dict[str, float], epoch: int, batch: int, rate: float, run: Path) -> None:
    for name, value in losses.items():
        if not math.isfinite(value):
            kept = (
                f"the checkpoint of the last epoch is in {str(run)!r}"
                if (run / CHECKPOINT).exists()
                else "no epoch was completed"
            )
            raise TrainingError(
                f"training diverged: the {name} loss is {value} in epoch {epoch + 1}, batch {batch}, at learning "
                f"rate {rate:g}; train again with a lower --learning-rate ({kept})"
            )


def _close_epoch(state: State, images: Images, held_out: float | None, rate: float) -> dict[str, Any]:
    """Write the epoch's mean losses into the log, and start the next epoch."""
    means = {name: total / len(images) for name, total in state.sums.items()}
    state.epoch, state.step, state.sums = state.epoch + 1, 0, {}
    return {
        "epoch": state.epoch,
        "loss": means["reconstruction"] / images[0].size,
        "held_out": held_out,
        "learning_rate": rate,
        **{name: value for name, value in means.items() if name != "reconstruction"},
        "seconds": round(state.seconds, 3),
    }


def _patience_is_spent(state: State, config: TrainConfig) -> bool:
    return bool(config.patience) and state.epoch - state.best_epoch >= config.patience


def _outcome(reason: str, state: State, held_out: Images) -> Outcome:
    return Outcome(reason, state.epoch, state.best_epoch, state.best_loss, len(held_out), state.seconds)


def _read_log(run: Path, epochs: int) -> list[dict[str, Any]]:
    """Return the log lines of the epochs that the checkpoint covers."""
    if not (run / LOG).exists():
        return []
    try:
        lines = [json.loads(line) for line in (run / LOG).read_text(encoding="utf-8").splitlines()]
        return [line for line in lines if line["epoch"] <= epochs]
    except (ValueError, TypeError, KeyError) as error:
        raise TrainingError(f"{str(run / LOG)!r} is damaged ({error}); repair its lines, or remove it") from error


def _write_log(fabric: Fabric, run: Path, lines: list[dict[str, Any]]) -> None:
    if fabric.is_global_zero:
        write_atomically(run / LOG, "".join(json.dumps(line) + "\n" for line in lines).encode())


@contextmanager
def interruption(fabric: Fabric) -> Iterator[Callable[[], bool]]:
    """Handle Ctrl-C and SIGTERM within a ``with`` block. A second Ctrl-C raises KeyboardInterrupt.

    Parameters
    ----------
    fabric
        The devices; all of them stop at the same step.

    Yields
    ------
    Callable[[], bool]
        Function that returns True once training has to stop.
    """
    asked = threading.Event()

    def ask(number: int, _frame: object) -> None:
        if asked.is_set():
            raise KeyboardInterrupt(number)
        asked.set()

    def interrupted() -> bool:
        if fabric.world_size == 1:
            return asked.is_set()
        flag = torch.tensor(float(asked.is_set()), device=fabric.device)
        stops = fabric.all_reduce(flag, reduce_op="sum")
        assert isinstance(stops, torch.Tensor)
        return bool(stops > 0)

    with stop_signals(ask):
        yield interrupted
