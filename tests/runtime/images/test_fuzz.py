"""Random damage to files and random folders, for as long as ONSPECT_FUZZ_SECONDS says, with ONSPECT_FUZZ_SEED.

ONSPECT_FUZZ_SECONDS=300 ONSPECT_FUZZ_SEED=7 pytest -m slow -s tests/runtime/images/test_fuzz.py
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import Result

from onspect.runtime.dataset.folder import labelled_images, training_images
from onspect.runtime.errors import DatasetError, ImageError, SourceError
from onspect.runtime.images.decode import decode_image
from onspect.runtime.sources import open_source

from ...image_makers import make_jpeg, make_png, make_tiff
from .test_formats import BGR, CHECKED, GREY, RGB, UNCHECKED

pytestmark = pytest.mark.slow

SECONDS = float(os.environ.get("ONSPECT_FUZZ_SECONDS", "3"))
SEED = int(os.environ.get("ONSPECT_FUZZ_SEED", "0"))

FILES = (
    {kind: make() for kind, make in (CHECKED | UNCHECKED).items()}
    | {f"jpeg {quality}": make_jpeg(BGR, quality=quality) for quality in (20, 75, 100)}
    | {
        "jpeg grey": make_jpeg(GREY),
        "jpeg optimized": make_jpeg(BGR, cv2.IMWRITE_JPEG_OPTIMIZE, 1),
        "png palette": make_png(GREY // 128, 3, bits=1, palette=bytes([0, 0, 0, 120, 10, 20])),
        "tiff16 lzw": make_tiff(GREY.astype(np.uint16) * 200, compression=5, rows=8),
        "tiff tiles deflate": make_tiff(RGB, compression=8, tile=16, predictor=True),
        "tiff big-endian planar": make_tiff(RGB, order=">", planar=True, rows=7, compression=32773),
        "webp lossless": cv2.imencode(".webp", BGR, [cv2.IMWRITE_WEBP_QUALITY, 101])[1].tobytes(),
    }
)
CHECKSUMS = frozenset({"png", "png16", "png palette", "tiff deflate"})
PACKED = ("jpeg", "tiff lzw", "tiff packbits", "tiff16 lzw", "tiff tiles deflate", "tiff big-endian planar")


def _rounds() -> Iterator[int]:
    end, number = time.monotonic() + SECONDS, 0
    while time.monotonic() < end:
        yield number
        number += 1


def _damage(data: bytes, random: np.random.Generator) -> tuple[str, bytes]:
    """Return a kind of damage and the damaged bytes: cut, forged end, hole, bytes lost, doubled, changed, or a bit."""
    place = int(random.integers(2, len(data) - 1))
    length = int(random.integers(1, max(2, min(400, len(data) - place))))
    kind = str(random.choice(["cut", "hole", "lost", "doubled", "changed", "bit", "several"]))
    if kind == "cut":
        return kind, data[:place]
    if kind == "hole":
        return kind, data[:place] + bytes(length) + data[place + length :]
    if kind == "lost":
        return kind, data[:place] + data[place + length :]
    if kind == "doubled":
        return kind, data[:place] + data[place : place + length] + data[place:]
    if kind == "changed":
        return kind, data[:place] + random.bytes(length) + data[place + length :]
    if kind == "bit":
        return kind, data[:place] + bytes([data[place] ^ (1 << int(random.integers(0, 8)))]) + data[place + 1 :]
    changed = data
    for _ in range(int(random.integers(2, 5))):
        changed = _damage(changed, random)[1] if len(changed) > 8 else changed
    return kind, changed


def test_damaged_pictures_are_decoded_whole_or_refused() -> None:
    """No other error than ImageError, in one line; no picture of a cut file, or another one where checksums are."""
    random = np.random.default_rng(SEED)
    wanted = {kind: decode_image(data) for kind, data in FILES.items()}
    counts, others = Counter[str](), Counter[str]()
    for _ in _rounds():
        name = str(random.choice(list(FILES)))
        whole = FILES[name]
        kind, changed = _damage(whole, random)
        try:
            found = decode_image(changed)
        except ImageError as error:
            assert "\n" not in str(error)  # noqa: PT017 - most end here
            counts[f"{kind}: refused"] += 1
            continue
        want = wanted[name]
        is_same = found.dtype == want.dtype and np.array_equal(found, want)
        counts[f"{kind}: {'the same' if is_same else 'another picture'}"] += 1
        others[name] += not is_same
        assert found.dtype in (np.uint8, np.uint16)
        assert found.ndim == 2 or found.shape[2] == 3
        assert is_same or not _must_be_whole(name, kind, changed), (name, kind, len(changed), len(whole))
    sys.stdout.write(
        f"\npictures, seed {SEED}: {counts.total()} files of {len(FILES)} kinds; {dict(sorted(counts.items()))}; "
        f"other pictures: {dict(others)}\n"
    )


def _must_be_whole(name: str, kind: str, changed: bytes) -> bool:
    """Return whether a damaged file must never give another picture than the whole file."""
    whole = FILES[name]
    long_hole = kind == "hole" and bytes(64) in changed and bytes(64) not in whole
    return (
        name in CHECKSUMS or kind == "cut" or (long_hole and name.startswith(PACKED) and changed[:700] == whole[:700])
    )


@pytest.mark.parametrize("command", ["score", "run"])
def test_damaged_files_in_a_folder_end_in_verdicts(
    onspect: Callable[..., Result], calibrated: Path, tmp_path: Path, command: str
) -> None:
    """One verdict a file, no traceback, and no score of another picture where damage can be noticed."""
    random = np.random.default_rng(SEED)
    folder, output = tmp_path / "in", tmp_path / "verdicts.jsonl"
    to = ("-o", output) if command == "score" else ("--sink", f"jsonl:{output}")
    counts: Counter[str] = Counter()

    def judge(files: dict[str, bytes]) -> dict[str, float | None]:
        shutil.rmtree(folder, ignore_errors=True)
        output.unlink(missing_ok=True)
        folder.mkdir()
        for number, data in files.items():
            (folder / f"{number}.png").write_bytes(data)
        result = onspect(command, calibrated, folder, *to)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
        assert sorted(Path(row["source"]).stem for row in rows) == sorted(files)
        faults = [row for row in rows if row["verdict"] == "fault"]
        assert all(row["reason"] and "\n" not in row["reason"] and row["score"] is None for row in faults)
        counts.update(row["verdict"] for row in rows)
        return {Path(row["source"]).stem: row["score"] for row in rows}

    wanted = judge(FILES)
    assert None not in wanted.values()
    for _ in _rounds():
        damaged = {}
        for number in range(100):
            name = str(random.choice(list(FILES)))
            damaged[str(number)] = (name, *_damage(FILES[name], random))
        scores = judge({number: changed for number, (_, _, changed) in damaged.items()})
        for number, (name, kind, changed) in damaged.items():
            assert scores[number] in (None, wanted[name]) or not _must_be_whole(name, kind, changed), (name, kind)
    sys.stdout.write(f"\n{command}, seed {SEED}: {counts.total()} files; {dict(sorted(counts.items()))}\n")


WORDS = (
    "train", "Train", "test", "val", "validation", "good", "Good", "OK", "io", "NG", "bad", "n.i.O.", "ground_truth",
    "masks", "Label", "scratch", "@eaDir", "#recycle", "x", "ü", "Data", "Images", "Masks", "Thumbnails", "good parts",
)  # fmt: skip
NAMES = (
    "good_1.png", "bad_1.png", "img1_NG.png", "0.png", "0_mask.png", "mask_0.png", "0_GT.png", "0Mask.png", "1.jpg",
    "1.png", "1.JPG", "labels.csv", "labels.txt", "labels.json", "y.txt", ".h.png", "a.heic", "Thumbs.db", "0.tif",
)  # fmt: skip
TABLES = (
    b"", b"file,label\n0.png,good\n", b"\x00;;\n", b"0.png OK\n1.png NG\n", b"\xff\xfe", b"\xff\xfef", b"file;label\n",
    b'file,label\n"0.png,x\n', b"file,label\n0.png,-1\n", b"file,is_good\n0,1\n1,0\n", b"\r\r\r",
    b"image|class\n..|NG\n",
)  # fmt: skip


def test_random_folders_end_in_images_or_one_sentence(tmp_path: Path) -> None:
    """No other error than DatasetError, in one line; nothing that a folder or a name calls bad is trained on."""
    random = np.random.default_rng(SEED)
    counts: Counter[str] = Counter()
    for number in _rounds():
        root = tmp_path / str(number)
        for _ in range(int(random.integers(1, 12))):
            path = root.joinpath(*random.choice(WORDS, int(random.integers(0, 5))), str(random.choice(NAMES)))
            if any(parent.is_file() for parent in path.parents) or path.is_dir():
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix.lower() in (".png", ".jpg", ".tif"):
                picture = np.full((4, 4), random.choice([0, 255]), np.uint8)
                data = cv2.imencode(path.suffix.lower(), picture)[1].tobytes()
                path.write_bytes(data[: int(random.integers(0, len(data)))] if random.random() < 0.1 else data)
            else:
                path.write_bytes(TABLES[int(random.integers(len(TABLES)))])
        for split in ("train", "val", "test"):
            try:
                found = training_images(root) if split == "train" else labelled_images(root, split)
            except DatasetError as error:
                assert "\n" not in str(error)  # noqa: PT017 - many end here
                counts[f"{split}: refused"] += 1
                continue
            counts[f"{split}: read"] += 1
            assert found
            if split == "train":
                names = [path.relative_to(root).as_posix() for path in training_images(root)]
                assert not any(word in name for name in names for word in ("NG", "bad", "n.i.O.", "_mask", "@eaDir")), (
                    names
                )
        shutil.rmtree(root, ignore_errors=True)
    sys.stdout.write(f"\nfolders, seed {SEED}: {counts.total()} readings; {dict(sorted(counts.items()))}\n")


@pytest.mark.parametrize("codec", ["FFV1", "MJPG", "mp4v"])
def test_damaged_videos_give_whole_frames_or_faults(tmp_path: Path, codec: str) -> None:
    """Damage in a video ends in faults or a SourceError; FFV1, which has checksums, never shows another frame."""
    if codec != "MJPG":
        pytest.importorskip("av")
    path = tmp_path / "a.avi"
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), 10, (64, 48))
    for seed in range(12):
        noise = np.random.default_rng(seed).integers(0, 256, (48, 64, 3), np.uint8)
        writer.write(cv2.GaussianBlur(noise, (5, 5), 2))
    writer.release()
    whole = [np.asarray(capture.frame) for capture in open_source(str(path))]
    assert len(whole) == 12
    data = path.read_bytes()
    random = np.random.default_rng(SEED)
    counts: Counter[str] = Counter()
    for _ in _rounds():
        kind, changed = _damage(data, random)
        damaged = tmp_path / "b.avi"
        damaged.write_bytes(changed)
        try:
            frames = [capture.frame for capture in open_source(str(damaged))]
        except SourceError as error:
            assert "\n" not in str(error)  # noqa: PT017 - some end here
            counts["refused"] += 1
            continue
        for frame in frames:
            if isinstance(frame, ImageError):
                counts["fault"] += 1
                continue
            is_same = any(np.array_equal(frame, one) for one in whole)
            counts["the same" if is_same else "another picture"] += 1
            assert is_same or codec != "FFV1", kind
    sys.stdout.write(f"\nvideo {codec}, seed {SEED}: {counts.total()} frames; {dict(sorted(counts.items()))}\n")
