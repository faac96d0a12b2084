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
import pytest
from click.testing import Result

from onspect.runtime.errors import ModelFileError
from onspect.runtime.inspection.batch import choose_batch
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.model.file import stamp
from onspect.runtime.model.schema import ModelInfo, Threshold

if importlib.util.find_spec("openvino") is None:
    pytest.skip("openvino is not installed: pip install 'onspect[openvino]'", allow_module_level=True)

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
