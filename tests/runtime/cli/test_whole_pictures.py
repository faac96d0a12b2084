"""No verdict but fault for a picture that is not whole, from the file to the verdict's line."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import Result

from ...image_makers import draw_scene, forge_jpeg_end, make_jpeg, make_png, make_tiff, punch_hole

Run = Callable[..., Result]

BGR = np.asarray(128 + (draw_scene(96, 128).astype(int) - 126) // 4, np.uint8)
GREY = np.ascontiguousarray(BGR[:, :, 1])
DEEP = GREY.astype(np.uint16) * 257
PAGE = make_tiff(GREY)
PGM = b"P5\n128 96\n255\n" + GREY.tobytes()
BMP = cv2.imencode(".bmp", BGR)[1].tobytes()
PACKED = {
    "jpeg.jpg": make_jpeg(BGR),
    "progressive.jpg": make_jpeg(BGR, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "restarts.jpg": make_jpeg(BGR, cv2.IMWRITE_JPEG_RST_INTERVAL, 4),
    "grey.png": make_png(GREY, 0),
    "deep.png": make_png(DEEP, 0),
    "deflate.tif": make_tiff(GREY, compression=8, rows=16),
    "lzw.tif": make_tiff(DEEP, compression=5, rows=16),
    "packbits.tif": make_tiff(GREY, compression=32773, rows=16),
    "lossless.webp": cv2.imencode(".webp", BGR, [cv2.IMWRITE_WEBP_QUALITY, 101])[1].tobytes(),
}
WHOLE = PACKED | {"raw.tif": make_tiff(GREY, rows=16), "rows.bmp": BMP, "values.pgm": PGM}
BROKEN = (
    {f"cut{share}-{name}": data[: len(data) * share // 100] for name, data in WHOLE.items() for share in (30, 60, 95)}
    | {f"hole-{name}": punch_hole(data, 0.6) for name, data in PACKED.items()}
    | {f"forged-{name}": forge_jpeg_end(data, 0.7) for name, data in PACKED.items() if name.endswith("jpg")}
    | {
        "two.tif": make_tiff(GREY, following=PAGE),
        "two.png": PACKED["grey.png"] * 2,
        "lower.bmp": BMP[:22] + (80).to_bytes(4, "little") + BMP[26:],
        "lower.pgm": PGM.replace(b"128 96", b"128 80", 1),
        "palette.png": make_png(GREY, 3, palette=bytes([128] * 3 * 140)),
        "empty.png": b"",
        "text.png": b"128",
    }
)


@pytest.mark.parametrize("command", ["score", "run"])
def test_no_picture_that_is_not_whole_is_judged(onspect: Run, calibrated: Path, tmp_path: Path, command: str) -> None:
    """Each damaged file is a fault with its reason; each whole one, of the same picture, is ok."""
    folder, output = tmp_path / "in", tmp_path / "verdicts.jsonl"
    folder.mkdir()
    for name, data in (WHOLE | BROKEN).items():
        (folder / name).write_bytes(data)
    to = ("-o", output) if command == "score" else ("--sink", f"jsonl:{output}")
    result = onspect(command, calibrated, folder, *to)
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    verdicts = {Path(row["source"]).name: row["verdict"] for row in rows}
    assert verdicts == dict.fromkeys(WHOLE, "ok") | dict.fromkeys(BROKEN, "fault")
    assert all("\n" not in row["reason"] for row in rows if row["verdict"] == "fault")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes")
def test_a_pipe_is_not_waited_for(onspect: Run, calibrated: Path, tmp_path: Path) -> None:
    """A named pipe without a writer is a fault, and the command continues."""
    os.mkfifo(tmp_path / "pipe.png")
    result = onspect("score", calibrated, tmp_path / "pipe.png")
    assert json.loads(result.stdout)["reason"] == "the file is empty (0 bytes)"


@pytest.mark.parametrize(
    "name",
    [
        "a b.png",
        "\u00fc.png",
        "[1].png",
        "50%d.png",
        "-x.png",
        "new\nline.png",
        "x" * 200 + ".png",
        "a'b\".png",
        "*.png",
    ],
)
@pytest.mark.skipif(os.name == "nt", reason="names that Windows does not allow")
def test_names_of_any_kind_come_back_as_they_are(onspect: Run, calibrated: Path, tmp_path: Path, name: str) -> None:
    """The verdict names the very file, whether the folder or the file was given."""
    path = tmp_path / "in" / name
    path.parent.mkdir()
    path.write_bytes(PACKED["grey.png"])
    for given in (path.parent, path):
        row = json.loads(onspect("score", calibrated, given).stdout)
        assert (Path(row["source"]), row["verdict"]) == (path, "ok")
