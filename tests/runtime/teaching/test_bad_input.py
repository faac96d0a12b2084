from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import Result

from onspect.runtime.model.file import read_model_file, restamp
from onspect.runtime.model.protobuf import encode_bytes
from onspect.runtime.teaching.base_file import BASE_KEY, edit_graph, read_initializers, split_metadata

from .conftest import draw, write_pictures

Run = Callable[..., Result]


def only_line(done: Result) -> str:
    """Return the error of a command that failed: one line, and it wrote no file."""
    assert done.exit_code == 1, done.output
    (line,) = [line for line in done.output.splitlines() if line.startswith("Error: ")]
    return line.removeprefix("Error: ")


@pytest.fixture
def refuse(onspect: Run, base_file: Path, tmp_path: Path) -> Callable[..., str]:
    """A function that teaches, and returns the one sentence with which that is refused."""

    def run(good: Path, *arguments: object, base: Path = base_file) -> str:
        line = only_line(onspect("teach", good, "--base", base, "-o", tmp_path / "new.onnx", *arguments))
        assert not (tmp_path / "new.onnx").exists()
        return line

    return run


def test_no_pictures(refuse: Callable[..., str], tmp_path: Path) -> None:
    """An empty folder and one that does not exist."""
    (tmp_path / "empty").mkdir()
    assert "has no folder train/good and no good images of its own" in refuse(tmp_path / "empty")
    assert refuse(tmp_path / "nowhere") == f"{str(tmp_path / 'nowhere')!r} does not exist; give a folder of images"


def test_one_picture(refuse: Callable[..., str], tmp_path: Path) -> None:
    """One picture shows nothing of how parts differ."""
    folder = write_pictures(tmp_path / "good", range(1))
    assert refuse(folder) == (
        f"there is only 1 picture, {str(folder / '0000.png')!r}, which does not show how good parts differ; give at "
        f"least 2, better 10 or more"
    )


def test_one_picture_many_times(refuse: Callable[..., str], tmp_path: Path) -> None:
    """Copies of a file count once, and so do the same pixels in files that differ."""
    folder = write_pictures(tmp_path / "good", range(1))
    for number in range(1, 4):
        (folder / f"{number}.png").write_bytes((folder / "0000.png").read_bytes())
    assert refuse(folder).startswith("there is only 1 picture, ")
    for number in range(1, 4):
        cv2.imwrite(str(folder / f"{number}.png"), draw(0), [cv2.IMWRITE_PNG_COMPRESSION, number])
    assert refuse(folder).startswith("there is only 1 picture, ")


def test_a_file_that_is_no_picture(refuse: Callable[..., str], tmp_path: Path) -> None:
    """A damaged picture is named."""
    folder = write_pictures(tmp_path / "good", range(3))
    (folder / "0003.png").write_bytes(b"nothing")
    assert f"1 of 4 images cannot be used ({str(folder / '0003.png')!r}: " in refuse(folder)


@pytest.mark.slow
def test_a_bad_part_is_named(onspect: Run, refuse: Callable[..., str], base_file: Path, tmp_path: Path) -> None:
    """A bad part among the good ones is named with the threshold without it; --strict refuses it."""
    folder = write_pictures(tmp_path / "good", range(14))
    write_pictures(folder, range(900, 901), spot=True)
    sentence = refuse(folder, "--copies", "none", "--strict")
    assert sentence == (
        f"the score of {str(folder / '0900.png')!r} is an outlier among the good pictures, like the score of a "
        "defective part; remove it, leave it out with --trim, or teach without --strict; nothing was written"
    )
    done = onspect("teach", folder, "--base", base_file, "-o", tmp_path / "new.onnx", "--copies", "none")
    assert done.exit_code == 0
    assert f"the score of {str(folder / '0900.png')!r}, " in done.output
    assert "is an outlier among the good pictures: without it the threshold is " in done.output


@pytest.mark.slow
def test_a_bad_part_is_left_out_by_trim(onspect: Run, base_file: Path, tmp_path: Path) -> None:
    """With --trim the lone picture is left out, and said, and the file is that of the other pictures."""
    folder = write_pictures(tmp_path / "good", range(14))
    options = ("--base", base_file, "--copies", "none")
    assert onspect("teach", folder, *options, "-o", tmp_path / "a.onnx").exit_code == 0
    write_pictures(folder, range(900, 901), spot=True)
    done = onspect("teach", folder, *options, "-o", tmp_path / "b.onnx", "--trim", "--strict")
    assert done.exit_code == 0, done.output
    assert f"{str(folder / '0900.png')!r} is left out: its score, " in done.output
    assert "taught 14 good pictures" in done.output
    alone, trimmed = (read_model_file(tmp_path / name).info for name in ("a.onnx", "b.onnx"))
    assert trimmed.threshold == alone.threshold
    assert trimmed.calibration is not None
    assert trimmed.calibration.policy.endswith("(1 good image left out by --trim)")


def test_a_bad_addition_is_named(onspect: Run, taught: Path, tmp_path: Path) -> None:
    """A bad picture that is added is compared with those taught before: named, refused, or left out."""
    file = read_model_file(taught)
    assert file.info.calibration is not None
    assert file.info.threshold is not None
    alike = dataclasses.replace(file.info.calibration, good_scores=tuple(np.linspace(0.2, 0.4, 12).tolist()))
    restamp(file, file.info.threshold, alike)
    one = write_pictures(tmp_path / "one", range(900, 901), spot=True)
    before = taught.read_bytes()
    assert "is an outlier among the good pictures" in only_line(onspect("teach", one, "--add-to", taught, "--strict"))
    assert "the scores of all 1 new pictures are outliers" in only_line(
        onspect("teach", one, "--add-to", taught, "--trim")
    )
    assert taught.read_bytes() == before
    write_pictures(one, range(50, 54))
    done = onspect("teach", one, "--add-to", taught, "--trim")
    assert done.exit_code == 0, done.output
    assert f"{str(one / '0900.png')!r} is left out" in done.output
    assert "taught 4 more good pictures" in done.output
    two = write_pictures(tmp_path / "two", range(901, 902), spot=True)
    done = onspect("teach", two, "--add-to", taught)
    assert f"the score of {str(two / '0901.png')!r}, " in done.output
    named = float(done.output.partition("without it the threshold is ")[2].partition(". Look")[0])
    info = read_model_file(taught).info
    assert info.threshold is not None
    assert named < info.threshold.score


def test_what_teach_leaves_out_is_counted(onspect: Run, base_file: Path, tmp_path: Path) -> None:
    """Other endings, system folders, copies and bad names are left out by teach as by every command."""
    folder = write_pictures(tmp_path / "good", range(8))
    write_pictures(folder / "@eaDir" / "x", range(2))
    (folder / "a.heic").write_bytes(b"x")
    (folder / "copy.png").write_bytes((folder / "0001.png").read_bytes())
    (folder / "0002_NG.png").write_bytes((folder / "0002.png").read_bytes() + b"more")
    done = onspect("teach", folder, "--base", base_file, "-o", tmp_path / "a.onnx", "--copies", "none")
    assert done.exit_code == 0, done.output
    assert f"left out in {str(folder)!r}: 3 files (in '@eaDir': 2, .heic: 1)" in done.output
    assert "1 of 10 images is left out of training" in done.output
    assert "1 of 9 images repeats another file" in done.output
    assert "taught 8 good pictures" in done.output


def test_good_parts_are_not_named(onspect: Run, parts: Path, base_file: Path, tmp_path: Path) -> None:
    """There is no outlier among good parts."""
    done = onspect("teach", parts, "--base", base_file, "-o", tmp_path / "new.onnx", "--strict", "--copies", "none")
    assert done.exit_code == 0, done.output
    assert "outlier" not in done.output


def test_wrong_base_files(
    refuse: Callable[..., str], parts: Path, taught: Path, tmp_path: Path, tiny_graph: Callable[..., bytes]
) -> None:
    """A missing file, a text, an ONNX file of another program, and a model file as base."""
    path = tmp_path / "other.onnx"
    cure = "give a file that 'onspect backbone' wrote"
    assert refuse(parts, base=path) == f"cannot read the base file {str(path)!r}: No such file or directory; {cure}"
    path.write_text("not an ONNX file at all")
    assert refuse(parts, base=path) == f"{str(path)!r} is truncated or not an ONNX file (23 bytes); copy it again"
    path.write_bytes(b"")
    assert refuse(parts, base=path) == f"{str(path)!r} is truncated or not an ONNX file (0 bytes); copy it again"
    path.write_bytes(tiny_graph())
    assert refuse(parts, base=path).startswith(f"{str(path)!r} is not a base file; 'onspect backbone -o base.onnx'")
    assert refuse(parts, base=taught).startswith(f"{str(taught)!r} is a model file already; add to it with --add-to")


@pytest.mark.parametrize("kept", [0.2, 0.9, 0.999])
def test_truncated_base_file(
    refuse: Callable[..., str], parts: Path, base_file: Path, tmp_path: Path, kept: float
) -> None:
    """A base file that was copied in part is refused, wherever it ends."""
    path = tmp_path / "cut.onnx"
    data = base_file.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])
    assert refuse(parts, base=path).startswith(f"{str(path)!r} is truncated or not an ONNX file (")


def write_base(path: Path, graph: bytes, metadata: dict[str, str], **changes: object) -> Path:
    """Write a base file that says something else about itself."""
    content = json.dumps(json.loads(metadata[BASE_KEY]) | changes)
    path.write_bytes(graph + encode_bytes(14, encode_bytes(1, BASE_KEY.encode()) + encode_bytes(2, content.encode())))
    return path


def test_newer_base_format(refuse: Callable[..., str], parts: Path, base_file: Path, tmp_path: Path) -> None:
    """A base file of a newer release says what to upgrade."""
    path = write_base(tmp_path / "newer.onnx", *split_metadata(base_file, base_file.read_bytes()), format_version=2)
    assert refuse(parts, base=path) == (
        f"{str(path)!r} has base format 2, and this onspect reads up to 1: upgrade onspect on this machine"
    )


@pytest.mark.parametrize("changes", [{"format_version": "1"}, {"widths": "many"}, {"backbone": None}])
def test_damaged_base_metadata(
    refuse: Callable[..., str], parts: Path, base_file: Path, tmp_path: Path, changes: dict[str, object]
) -> None:
    """Metadata that do not fit are reported as damage."""
    path = write_base(tmp_path / "damaged.onnx", *split_metadata(base_file, base_file.read_bytes()), **changes)
    assert refuse(parts, base=path).startswith(f"{str(path)!r} has damaged metadata (")


def test_a_base_file_whose_graph_was_altered(
    refuse: Callable[..., str], parts: Path, base_file: Path, tmp_path: Path
) -> None:
    """A weight that changed its value, as a failing disk or another program does, is noticed."""
    graph, metadata = split_metadata(base_file, base_file.read_bytes())
    weights = read_initializers(graph, ["stem.weight"])["stem.weight"].copy()
    weights[0, 0, 0, 0] += 1e-3
    path = write_base(tmp_path / "altered.onnx", edit_graph(graph, {"stem.weight": weights}), metadata)
    assert refuse(parts, base=path) == (
        f"the graph of the base file {str(path)!r} does not match its checksum: it was damaged or changed; copy it "
        "again, or make it again with 'onspect backbone'"
    )


def test_options_that_cannot_be(refuse: Callable[..., str], parts: Path, tmp_path: Path, onspect: Run) -> None:
    """A rate that so few pictures cannot promise, and an output that is not a model file."""
    sentence = refuse(parts, "--max-fpr", "0.5%")
    assert sentence.startswith("--max-fpr 0.5% needs at least 199 good pictures to promise that, and there are 12")
    done = onspect("teach", parts, "-o", tmp_path / "new.txt", "--base", parts / "val/good/0100.png")
    assert only_line(done) == f"the model file {str(tmp_path / 'new.txt')!r} must end in .onnx"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "give GOOD, a folder with pictures of good parts"),
        (["good"], "give either -o, the file to make, or --add-to, the file to teach more"),
        (["good", "-o", "a.onnx", "--add-to", "b.onnx"], "give either -o, the file to make, or --add-to"),
        (["good", "--add-to", "b.onnx", "--base", "c.onnx"], "--base is for a new file"),
        (["good", "--undo", "b.onnx"], "--undo takes the model file and no other option: onspect teach --undo b.onnx"),
        (["--add-to", "b.onnx", "--undo"], "and no other option: onspect teach --undo b.onnx"),
        (["--undo"], "--undo takes the model file and no other option: onspect teach --undo part.onnx"),
        (["good", "-o", "a.onnx", "--max-fpr", "5"], "'5' is more than 100%: is 5% meant? Write 5%"),
        (["good", "-o", "a.onnx", "--max-fpr", "0%"], "'0%' sets no limit at all; write 0.5% or 0.005"),
        (["good", "-o", "a.onnx", "--max-fpr", "1"], "'1' is 100%, which sets no limit at all: is 1% meant? Write 1%"),
        (["good", "-o", "a.onnx", "--max-fpr", "few"], "'few' is not a rate; write 0.5% or 0.005"),
        (
            ["good", "-o", "a.onnx", "--base", "b.onnx", "--size", "100x96"],
            "size is 100x96; give multiples of 32 pixels, such as 256x256",
        ),
        (["good", "-o", "a.onnx", "--size", "big"], "'big' is not a size such as 256x192"),
    ],
)
def test_usage(onspect: Run, arguments: list[str], sentence: str) -> None:
    """Options that do not go together are usage errors."""
    done = onspect("teach", *arguments)
    assert done.exit_code == 2
    assert sentence in " ".join(done.output.split())


def test_a_backbone_that_gives_no_numbers(
    refuse: Callable[..., str], parts: Path, base_file: Path, tmp_path: Path
) -> None:
    """If the network's features are not finite, no file is written."""
    graph, metadata = split_metadata(base_file, base_file.read_bytes())
    weights = read_initializers(graph, ["stem.weight"])["stem.weight"]
    graph = edit_graph(graph, {"stem.weight": np.full_like(weights, np.nan)})
    path = write_base(tmp_path / "nan.onnx", graph, metadata, graph_sha256=hashlib.sha256(graph).hexdigest())
    assert refuse(parts, base=path) == (
        "the network gives features that are not finite numbers for these pictures; make the base file again"
    )
