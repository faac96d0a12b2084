from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import Result
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from onspect.runtime.errors import ModelFileError
from onspect.runtime.inspection.batch import choose_batch
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.model.file import stamp
from onspect.runtime.model.openvino import OpenVinoSession
from onspect.runtime.model.schema import ModelInfo, Threshold

if importlib.util.find_spec("openvino") is None:
    pytest.skip("openvino is not installed: pip install 'onspect[openvino]'", allow_module_level=True)

INT8 = "<Type: 'int8_t'>"
RANDOM = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 1), np.uint8)


@pytest.fixture
def inspector(calibrated: Path) -> Inspector:
    """Return an inspector that OpenVINO runs."""
    return Inspector(calibrated, provider="openvino")


def test_every_output_is_onnxruntime_s(inspector: Inspector, calibrated: Path) -> None:
    """Score, error map, reconstruction and latent agree with onnxruntime's to 1e-4 of their value, in a batch too."""
    other = Inspector(calibrated, provider="cpu")
    found, expected = inspector.run(RANDOM), other.run(RANDOM)
    np.testing.assert_allclose(found.score, expected.score, rtol=1e-4)
    np.testing.assert_allclose(found.error_map, expected.error_map, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(inspector.encode(RANDOM), other.encode(RANDOM), rtol=1e-4)
    np.testing.assert_array_equal(inspector.reconstruct(RANDOM), other.reconstruct(RANDOM))
    assert (found.score.dtype, found.error_map.dtype) == (np.float32, np.float32)


def test_answers_outlive_the_next_run(inspector: Inspector) -> None:
    """The arrays of a run belong to the caller: the next run does not overwrite them."""
    first = inspector.run(RANDOM[:2])
    kept = first.error_map.copy()
    inspector.run(RANDOM[2:4])
    np.testing.assert_array_equal(first.error_map, kept)


def test_threads_share_a_session(inspector: Inspector) -> None:
    """Threads that share an inspector get the scores that one thread gets, and an image's score not its batch's."""
    alone = [float(inspector.run(image[np.newaxis]).score[0]) for image in RANDOM]
    with ThreadPoolExecutor(8) as pool:
        pairs = list(pool.map(lambda at: inspector.run(RANDOM[at : at + 2]).score.tolist(), range(0, 40, 2)))
    assert [score for pair in pairs for score in pair] == alone


@pytest.mark.parametrize("gain", [float("nan"), float("inf")])
def test_score_that_is_not_finite_is_a_fault(
    tmp_path: Path, write_tiny_model: Callable[..., Path], gain: float
) -> None:
    """A model that answers NaN or infinity yields a fault here too, never ok."""
    path = write_tiny_model(tmp_path / "part.onnx", threshold=Threshold(1.0, 1.0), gain=gain)
    assert Inspector(path, provider="openvino").inspect(RANDOM[0, :, :, 0]).verdict == "fault"


def test_images_are_taken_as_on_the_processor(inspector: Inspector) -> None:
    """It is a processor's provider: a worker takes as few images at a time as with onnxruntime on one."""
    assert inspector.provider == "openvino"
    preprocess = inspector.info.preprocess
    assert choose_batch(preprocess, "openvino") == choose_batch(preprocess, "cpu")


def test_input_of_another_type_is_refused(inspector: Inspector) -> None:
    """Numbers that are not uint8 raise an error, as in onnxruntime, and are not turned into some silently."""
    with pytest.raises(RuntimeError):
        inspector.run(RANDOM.astype(np.float32))  # type: ignore[arg-type]
    assert np.isfinite(inspector.run(RANDOM).score).all()


def test_graph_that_it_refuses_is_a_model_file_error(
    tmp_path: Path, tiny_graph: Callable[..., bytes], tiny_info: Callable[..., ModelInfo]
) -> None:
    """A graph that OpenVINO cannot run raises ModelFileError of one line, with the file and the provider to take."""
    model = onnx.ModelProto.FromString(tiny_graph())
    model.graph.node[0].op_type = "NoSuchOperator"
    (tmp_path / "part.onnx").write_bytes(stamp(model.SerializeToString(), tiny_info(), []))
    with pytest.raises(
        ModelFileError, match=r"OpenVINO cannot load '.*part\.onnx': .*; use the provider cpu$"
    ) as found:
        Inspector(tmp_path / "part.onnx", provider="openvino")
    assert "\n" not in str(found.value)


def test_graph_that_contradicts_its_metadata_is_refused(
    tmp_path: Path, tiny_graph: Callable[..., bytes], tiny_info: Callable[..., ModelInfo]
) -> None:
    """A graph of another input size than the metadata say raises ModelFileError with both."""
    (tmp_path / "mixed.onnx").write_bytes(stamp(tiny_graph(width=16), tiny_info(width=8), []))
    with pytest.raises(ModelFileError, match=r"uint8.*16, 16, 1.*metadata say.*uint8.*16, 8, 1"):
        Inspector(tmp_path / "mixed.onnx", provider="openvino")


def test_score_command_runs_on_it(
    onspect: Callable[..., Result], calibrated: Path, tmp_path: Path, write_image: Callable[..., Path]
) -> None:
    """`onspect score --provider openvino` gives the verdicts that it gives without."""
    for value in (120, 128, 200):
        write_image(tmp_path / f"images/{value}.png", value)
    result = onspect("score", calibrated, tmp_path / "images", "--provider", "openvino")
    assert result.exit_code == 0, result.output
    assert [line.split('"verdict": "')[1][:2] for line in result.stdout.splitlines()] == ["ok", "ok", "ng"]


def test_nothing_is_reported_or_kept(calibrated: Path, tmp_path: Path, write_image: Callable[..., Path]) -> None:
    """A process that runs OpenVINO loads nothing of it that reports, opens no connection and keeps no identity."""
    image, home = write_image(tmp_path / "a.png"), tmp_path / "home"
    home.mkdir()
    script = (
        "import sys\n"
        "def watch(event, arguments):\n"
        "    assert not event.startswith(('socket.connect', 'socket.getaddrinfo', 'urllib.', 'os.fork')), event\n"
        "sys.addaudithook(watch)\n"
        "from onspect.runtime.cli import main\n"
        "main(['score', *sys.argv[1:], '--provider', 'openvino'], standalone_mode=False)\n"
        "assert 'openvino' in sys.modules\n"
        "assert not [name for name, module in sys.modules.items() if module and 'openvino_telemetry' in name]"
    )
    variables = {name: value for name, value in os.environ.items() if name not in ("CI", "TF_BUILD", "JENKINS_URL")}
    variables |= {"HOME": str(home), "USERPROFILE": str(home), "LOCALAPPDATA": str(home)}
    command = [sys.executable, "-c", script, str(calibrated), str(image)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=variables, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "1 image: 1 ok\n")
    assert not [path for path in home.rglob("*") if "intel" in path.name.lower() or "openvino" in path.name.lower()]


def build_weighted(*, quantized: bool = False) -> bytes:
    """Return a graph with a convolution of 8-bit weights and a scale, whose result [N, 1, 8, 6] is enlarged 16 times.

    With `quantized` the activations are rounded to 8 bits too.
    """
    random = np.random.default_rng(0)
    values = {
        "weights.int8": random.integers(-127, 128, (1, 1, 3, 3)).astype(np.int8),
        "weights.scale": np.array([[[[0.01]]]], np.float32),
        "step": np.array(0.5, np.float32),
        "zero": np.array(0, np.uint8),
        "scales": np.array([1, 1, 16, 16], np.float32),
        "channel": np.array([1], np.int64),
        "sides": np.array([1, 2], np.int64),
    }
    nodes = [
        helper.make_node("Cast", ["weights.int8"], ["weights.float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["weights.float", "weights.scale"], ["weights"]),
        helper.make_node("Cast", ["image"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["numbers"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("QuantizeLinear", ["planes", "step", "zero"], ["rounded"]),
        helper.make_node("DequantizeLinear", ["rounded", "step", "zero"], ["taken"]),
        helper.make_node("Conv", ["taken" if quantized else "planes", "weights"], ["small"], pads=[1, 1, 1, 1]),
        helper.make_node(
            *("Resize", ["small", "", "scales"], ["large"]),
            mode="linear",
            coordinate_transformation_mode="half_pixel",
        ),
        helper.make_node("Squeeze", ["large", "channel"], ["error_map"]),
        helper.make_node("ReduceMean", ["error_map", "sides"], ["score"], keepdims=0),
    ]
    outputs = [("score", ["N"]), ("error_map", ["N", 128, 96])]
    graph = helper.make_graph(
        nodes
        if quantized
        else [node for node in nodes if "Quantize" not in node.op_type and "Dequant" not in node.op_type],
        "weighted",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", 8, 6, 1])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs],
        [
            numpy_helper.from_array(value, name)
            for name, value in values.items()
            if quantized or name not in ("step", "zero")
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return bytes(model.SerializeToString())


def read_types(graph: bytes, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the types of the operations that OpenVINO compiles for a graph; a constant's is that of its values."""
    import openvino

    compiled = []

    class Core(openvino.Core):
        def compile_model(self, model: openvino.Model, *rest: object) -> openvino.CompiledModel:
            compiled.append(model)
            return super().compile_model(model, *rest)

    monkeypatch.setattr(openvino, "Core", Core)
    OpenVinoSession(graph, 1)
    operations = compiled[0].get_ops()
    constants = [str(item.get_element_type()) for item in operations if item.get_type_name() == "Constant"]
    return [item.get_type_name() for item in operations] + constants


def test_stored_weights_are_computed_before_it_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights with a scale are constants before OpenVINO compiles, and the enlargement is two products."""
    types = read_types(build_weighted(), monkeypatch)
    assert (types.count("Convert"), types.count("Multiply"), types.count("Interpolate")) == (1, 0, 0)
    assert INT8 not in types
    assert types.count("MatMul") == 2


def test_quantized_arithmetic_keeps_its_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a graph with quantized activations the weights stay in 8 bits."""
    types = read_types(build_weighted(quantized=True), monkeypatch)
    assert "FakeQuantize" in types
    assert INT8 in types


def test_changed_graph_gives_onnxruntime_s_outputs() -> None:
    """Computed weights and products change neither score nor error map, up to its edges."""
    images: NDArray[np.uint8] = np.random.default_rng(1).integers(0, 256, (3, 8, 6, 1), np.uint8)
    session = onnxruntime.InferenceSession(build_weighted(), providers=["CPUExecutionProvider"])
    expected = session.run(["score", "error_map"], {"image": images})
    found = OpenVinoSession(build_weighted(), 1).run(["score", "error_map"], {"image": images})
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-5, atol=1e-3)
