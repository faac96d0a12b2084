"""Batch normalisation over the whole batch where several processes see a share of it each.

Normalised by its share alone, each process would train another network than one device does. torch's own
SyncBatchNorm does the same on GPUs, and refuses CPUs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed, nn


class SharedBatchNorm2d(nn.BatchNorm2d):
    """`BatchNorm2d` of [n, channels, height, width], with mean and variance over all processes while it trains."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name for it
        """Return the features normalised; every process of the group must come here, each with its share."""
        if not self.training:
            return super().forward(input)
        values = input.float()
        count = _sum_over_processes(values.new_tensor(values.numel() / values.shape[1]))
        mean = _sum_over_processes(values.sum(dim=(0, 2, 3))) / count
        centred = values - _spread(mean)
        variance = _sum_over_processes(centred.square().sum(dim=(0, 2, 3))) / count
        self._remember(mean.detach(), variance.detach(), count)
        scaled = centred * _spread(self.weight * torch.rsqrt(variance + self.eps)) + _spread(self.bias)
        return scaled.to(input.dtype)

    def _remember(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * count / (count - 1).clamp(min=1), self.momentum)


def share_norms(module: nn.Module) -> None:
    """Put a `SharedBatchNorm2d` with the same tensors in the place of every `BatchNorm2d` below module."""
    for name, child in module.named_children():
        if type(child) is nn.BatchNorm2d:
            shared = SharedBatchNorm2d(child.num_features, child.eps, child.momentum)
            shared.load_state_dict(child.state_dict())
            setattr(module, name, shared)
        else:
            share_norms(child)


def _spread(values: Tensor) -> Tensor:
    return values[None, :, None, None]


def _sum_over_processes(value: Tensor) -> Tensor:
    total: Tensor = _SumOverProcesses.apply(value)  # type: ignore[no-untyped-call]  # torch's
    return total


class _SumOverProcesses(torch.autograd.Function):
    """A sum on which every process's loss depends, so that its gradient is the sum of theirs."""

    @staticmethod
    def forward(_context: Any, value: Tensor) -> Tensor:
        total = value.contiguous().clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_context: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        distributed.all_reduce(total)
        return total
