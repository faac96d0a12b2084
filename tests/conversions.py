"""A fixture for tests of what comes after the conversion of a network to ONNX."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from torch import Tensor, nn

from onspect.export import onnx_writer

from .sharing import Share


@pytest.fixture(scope="module", autouse=True)
def converted(share: Share) -> Iterator[None]:
    """Convert equal networks once a session: torch takes seconds, and most tests are about what comes after it."""
    convert = onnx_writer.convert

    def convert_once(module: nn.Module, example: NDArray[np.uint8] | Tensor, name: str, outputs: list[str]) -> bytes:
        key = describe(module, np.asarray(example), name, outputs)
        if key is None:
            return convert(module, example, name, outputs)
        write = "graph.onnx"
        folder = share(key, lambda folder: (folder / write).write_bytes(convert(module, example, name, outputs)))
        return (folder / write).read_bytes()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_writer, "convert", convert_once)
        yield


def describe(module: nn.Module, *others: Any) -> str | None:
    """Return a digest of a network's structure, weights and settings; None if a setting is known by address only."""
    facts = [f"{name} {type(part)} {part.extra_repr()}" for name, part in module.named_modules()]
    for name, part in module.named_modules():
        facts += [f"{name}.{key}={value!r}" for key, value in vars(part).items() if not key.startswith("_")]
    tensors = [*module.named_parameters(), *module.named_buffers()]
    facts += [f"{name} {tensor.dtype} {tuple(tensor.shape)}" for name, tensor in tensors] + [repr(others[1:])]
    digest = hashlib.sha256(others[0].tobytes() + str((others[0].shape, others[0].dtype)).encode())
    for _, tensor in tensors:
        digest.update(tensor.detach().numpy().tobytes())
    text = "\n".join(facts)
    digest.update(text.encode())
    return None if re.search(r" at 0x[0-9a-f]+>", text) else digest.hexdigest()
