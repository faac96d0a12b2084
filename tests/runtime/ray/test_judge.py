from __future__ import annotations

import dataclasses
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from onspect.runtime.images.fit_alignment import fit_alignment
from onspect.runtime.model.file import stamp
from onspect.runtime.model.schema import Preprocess, RegionOfInterest, SourceLimits, Threshold

from ...moving_parts import draw_bracket, draw_scene
from ...tiny_model import build_graph, make_info
from .verdicts_of import read_partitions, without_timings

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("ray") is None, reason="needs pip install 'onspect[ray]'"),
    pytest.mark.skipif(sys.platform == "win32", reason="Ray's cluster on one machine needs Linux or macOS"),
    pytest.mark.filterwarnings("ignore:::ray", "ignore::ResourceWarning", "ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # Ray leaves sockets to Python
]

BUCKET = "plant"
COPIES = 4_000
"""Lines of a list of 32 partitions, which keeps two workers busy for a second and more."""


@dataclass(frozen=True)
class Ran:
    """Output and exit code of a command."""

    exit_code: int
    stdout: str
    stderr: str


Run = Callable[..., Ran]


@pytest.fixture
def onspect() -> Run:
    """Run the command in its own process: gRPC, which Ray uses, may hang after other tests have forked."""

    def run(*arguments: object, stdin: str | None = None) -> Ran:
        command = [sys.executable, "-c", "from onspect.runtime.cli import main; main()", *map(str, arguments)]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=240, check=False)
        return Ran(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def s3() -> Iterator[Any]:
    """Return the client of an S3 server with one bucket; fsspec finds the server by the environment."""
    pytest.importorskip("s3fs", reason="the S3 test needs s3fs and moto")
    server_module = pytest.importorskip("moto.server", reason="the S3 test needs s3fs and moto")
    import boto3

    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        client = boto3.client("s3")
        client.create_bucket(Bucket=BUCKET)
        yield client
        client.close()
        server.stop()


@pytest.fixture(scope="session")
def address(s3: Any) -> Iterator[str]:
    """Return the address of a Ray cluster of this machine's loopback with two cores, which knows the S3 server."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # loopback here, too
        command = [sys.executable, str(Path(__file__).with_name("ray_cluster.py")), "2"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as cluster:
            assert cluster.stdin is not None
            assert cluster.stdout is not None
            yield cluster.stdout.readline().strip()
            cluster.stdin.close()
            cluster.wait(60)


@pytest.fixture
def parts(tmp_path: Path, write_image: Callable[..., Path]) -> Path:
    """Return a folder of 75 images of all brightnesses, and a broken one."""
    for number in range(75):
        write_image(tmp_path / "parts" / f"{number % 3}" / f"{number}.png", 90 + number, (20, 30))
    (tmp_path / "parts" / "1" / "broken.png").write_bytes(b"\x89PNG")
    return tmp_path / "parts"


@pytest.fixture
def long_list(tmp_path: Path, write_image: Callable[..., Path]) -> str:
    """Return a list of two images, again and again, for stdin."""
    good = write_image(tmp_path / "good.png", 128)
    bad = write_image(tmp_path / "bad.png", 250)
    return f"{good}\n{bad}\n" * (COPIES // 2)


def write_moved_parts(folder: Path) -> tuple[Path, Path]:
    """Write a model file with region and alignment, and four folders with the same 20 frames, and a broken file.

    The last two frames show no part. They are more files than one partition takes.
    """
    size = 32
    poses = [(160.0, 120.0, 0.0), (150.0, 131.0, 20.0), (181.0, 118.0, -100.0)]
    taught = [draw_scene(*pose, seed=number) for number, pose in enumerate(poses)]
    readers = [functools.partial(np.asarray, frame) for frame in taught]
    align = fit_alignment(readers, (100, 60, 120, 120), picture=taught[0], turn=180.0, scale=0.0, white_level=65535)
    corners = ((130, 90), (190, 90), (160, 150))
    region = RegionOfInterest((130, 90, 61, 61), (320, 240), polygons=(corners,))
    recipe = Preprocess(size, size, 1, 65535, SourceLimits((1,), None, None), region, align)
    info = dataclasses.replace(make_info(width=size, height=size, threshold=Threshold(0.05, 0.1)), preprocess=recipe)
    model = folder / "aligned.onnx"
    model.write_bytes(stamp(build_graph(width=size, height=size), info, []))
    frames = folder / "frames"
    (frames / "0").mkdir(parents=True)
    rng = np.random.default_rng(6)
    for number in range(20):
        pose = (rng.uniform(110, 210), rng.uniform(90, 150), rng.uniform(-180, 180))
        part = draw_bracket(defect=number % 2 == 0) if number < 18 else np.zeros((120, 120), np.uint8)
        cv2.imwrite(str(frames / "0" / f"{number:02}.png"), draw_scene(*pose, seed=50 + number, part=part))
    for name in ("1", "2", "3"):
        shutil.copytree(frames / "0", frames / name)
    (frames / "1" / "broken.png").write_bytes(b"\x89PNG")
    return model, frames


def test_verdicts_are_those_of_the_local_engine(onspect: Run, tmp_path: Path, address: str) -> None:
    """Judged on Ray, every frame has the local engine's verdict, score and pose, bit for bit; a bad file is a fault."""
    model, frames = write_moved_parts(tmp_path)
    local = onspect("score", model, frames, "-o", tmp_path / "local.jsonl")
    spread = onspect("score", model, frames, "-o", tmp_path / "out", "--engine", "ray", "--address", address)
    assert (spread.exit_code, spread.stdout) == (0, ""), spread.stderr
    assert read_summary(spread) == read_summary(local)
    expected = without_timings((tmp_path / "local.jsonl").read_text())
    assert {line["verdict"] for line in expected} == {"ok", "ng", "fault"}
    assert len({line["pose_angle"] for line in expected}) == 19  # of 18 parts, and None
    assert [line["code"] for line in expected if line["code"]] == ["position"] * 4 + ["image"] + ["position"] * 4
    assert without_timings(read_partitions(tmp_path / "out")) == expected
    job = json.loads((tmp_path / "out" / "_job.json").read_text())
    assert job["complete"]["fault"] == 9


def test_bucket_to_bucket(onspect: Run, calibrated: Path, parts: Path, tmp_path: Path, address: str, s3: Any) -> None:
    """Images in S3 become Parquet partitions in S3, with the verdicts that the local engine gives the same files."""
    from pyarrow import fs, parquet

    for path in parts.rglob("*.png"):
        s3.upload_file(str(path), BUCKET, path.relative_to(tmp_path).as_posix())
    onspect("score", calibrated, parts, "-o", tmp_path / "local.jsonl")
    output = f"s3://{BUCKET}/verdicts.parquet"
    spread = onspect(
        "score", calibrated, f"s3://{BUCKET}/parts/", "-o", output, "--engine", "ray", "--address", address
    )
    assert spread.exit_code == 0, spread.stderr
    store = fs.S3FileSystem(endpoint_override=os.environ["AWS_ENDPOINT_URL"])
    rows = parquet.read_table(f"{BUCKET}/verdicts.parquet", filesystem=store).to_pylist()
    expected = without_timings((tmp_path / "local.jsonl").read_text())
    for line in expected:
        line["source"] = f"s3://{BUCKET}/{Path(line['source']).relative_to(tmp_path).as_posix()}"
    for row in rows:
        del row["time"], row["latency_ms"]
    assert rows == expected


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="the workers are found in /proc")
def test_kills_lose_and_repeat_nothing(
    onspect: Run, calibrated: Path, tmp_path: Path, long_list: str, address: str
) -> None:
    """Killed workers are replaced. After kill -9 of the job, --resume judges the missing images only."""
    output = tmp_path / "out"
    arguments = ["score", str(calibrated), "-", "-o", str(output), "--engine", "ray", "--address", address]
    command = [sys.executable, "-c", "from onspect.runtime.cli import main; main()", *arguments]
    with (
        (tmp_path / "stderr").open("w+") as said,
        subprocess.Popen(command, stdin=subprocess.PIPE, stderr=said, text=True) as job,
    ):
        assert job.stdin is not None
        job.stdin.write(long_list)
        job.stdin.close()
        wait = functools.partial(wait_for, job=job, said=tmp_path / "stderr")
        wait(lambda: find_partitions(output))
        killed = find_workers()
        assert killed
        for worker in killed:
            os.kill(worker, signal.SIGKILL)
        wait(lambda: set(find_workers()) - set(killed))
        written = len(find_partitions(output))
        wait(lambda: len(find_partitions(output)) > written)
        job.kill()
    before = {path: path.stat().st_mtime_ns for path in find_partitions(output)}
    refused = onspect(*arguments, stdin=long_list)
    assert (refused.exit_code, refused.stderr.count("--resume")) == (1, 1)
    resumed = onspect(*arguments, "--resume", stdin=long_list)
    assert f"{COPIES} images: {COPIES // 2} ok, {COPIES // 2} ng" in resumed.stderr
    assert len(before) < len(find_partitions(output))
    assert before == {path: path.stat().st_mtime_ns for path in before}
    verdicts = without_timings(read_partitions(output))
    assert [line["index"] for line in verdicts] == list(range(COPIES))
    assert [line["verdict"] for line in verdicts] == ["ok", "ng"] * (COPIES // 2)


def test_cluster_that_is_not_there_is_one_line(onspect: Run, calibrated: Path, parts: Path, tmp_path: Path) -> None:
    """If no cluster listens, the command says so in a line, and leaves no output."""
    options = ["-o", tmp_path / "out", "--engine", "ray", "--address", "127.0.0.1:1"]
    refused = onspect("score", calibrated, parts, *options)
    assert (refused.exit_code, len(refused.stderr.splitlines())) == (1, 1)
    assert "cannot join the Ray cluster at '127.0.0.1:1'" in refused.stderr
    assert not (tmp_path / "out").exists()


def read_summary(ran: Ran) -> str:
    """Return the line on stderr with the counts; a slow machine says how far it is before."""
    return next(line for line in ran.stderr.splitlines() if not line.startswith("scoring: "))


def wait_for(condition: Callable[[], object], job: subprocess.Popen[str], said: Path) -> None:
    """Wait until a condition is true; fail with the output of a job if it ends before."""
    end = time.monotonic() + 240
    while not condition():
        assert job.poll() is None, said.read_text()
        assert time.monotonic() < end
        time.sleep(0.002)


def find_partitions(folder: Path) -> list[Path]:
    """Return the partitions that a job has written."""
    return list(folder.glob("part-*"))


def find_workers() -> list[int]:
    """Return the process ids of the Scorers that are at work."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if b"Scorer" in path.read_bytes() and b"ray::" in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:  # it has ended
            continue
    return found
