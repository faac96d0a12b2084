"""The public names take paths as text and as `Path`."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from onspect.demo import draw_dataset
from onspect.export import export, quantize
from onspect.runtime import (
    DatasetError,
    Inspector,
    LabelStore,
    Line,
    Models,
    PictureFolder,
    QueuedSink,
    check_computer,
    open_sink,
    open_source,
    plan_split,
    read_config,
    read_image,
    read_model_file,
    read_model_info,
    read_recent,
    write_picture,
    write_png,
    write_split,
    yield_per_hour,
)
from onspect.training import Devices, TrainOptions, load_trained, resume, train


@pytest.mark.slow
def test_paths_may_be_text(tmp_path: Path) -> None:
    """From a folder to a model file by the public names, with every path as text."""
    (tmp_path / "good").mkdir()
    for seed in range(8):
        image = np.random.default_rng(seed).integers(0, 255, (28, 28), np.uint8)
        cv2.imwrite(str(tmp_path / "good" / f"{seed}.png"), image)
    run, model, mask = (str(tmp_path / name) for name in ("run", "part.onnx", "mask.png"))
    cv2.imwrite(mask, np.full((28, 28), 255, np.uint8) * (np.arange(28) < 20).astype(np.uint8))
    devices = Devices(accelerator="cpu")
    train(str(tmp_path / "good"), run, TrainOptions(epochs=1), devices=devices)
    assert resume(run, devices=devices).reason == "finished"
    assert load_trained(run).record.config.preset == "paper"
    assert export(run, model, score="mse", mask=mask).info.score.name == "mse"
    with pytest.raises(DatasetError):
        quantize(model, str(tmp_path / "small.onnx"), "fp16", str(tmp_path / "parts"))


@pytest.mark.parametrize("kind", [str, Path])
def test_the_runtime_takes_text_and_path(kind: Callable[[Path], str | Path], calibrated: Path, tmp_path: Path) -> None:
    """A path may be text or a `Path` in every function of the runtime that takes one."""
    model, data = kind(calibrated), tmp_path / "data"
    draw_dataset(kind(data), seed=0, train=8, good=1, defective=1, size=32)
    good = data / "train" / "good"
    picture = sorted(good.iterdir())[0]
    frame = read_image(kind(picture))
    write_png(kind(tmp_path / "a.png"), frame)
    write_picture(kind(tmp_path / "a.jpg"), frame)
    assert PictureFolder(kind(tmp_path / "taken")).write(frame).name == "0001.png"

    inspector = Inspector(model)
    assert read_model_file(model).info == read_model_info(model) == inspector.info
    assert inspector.inspect(kind(picture)).verdict == next(inspector.inspect_many([kind(picture)])).verdict
    assert len(list(inspector.inspect_many(kind(good)))) == 8
    assert Models({None: model}, None, Inspector).names == [None]

    history = tmp_path / "history.db"
    sink = QueuedSink(open_sink(f"sqlite:{history}", append=False), f"sqlite:{history}", kind(tmp_path / "spool"))
    assert Line(model, [open_source(kind(good))], [sink]).run().captured == 8
    assert len(read_recent(kind(history))) == sum(hour.total for hour in yield_per_hour(kind(history))) == 8
    assert LabelStore(kind(history)).path == history

    (tmp_path / "table.csv").write_text("file,label\n" + "".join(f"{path.name},good\n" for path in good.iterdir()))
    write_split(plan_split(kind(good), labels=kind(tmp_path / "table.csv")), kind(tmp_path / "split"))
    assert len(list((tmp_path / "split").rglob("*.png"))) == 8
    (tmp_path / "line.toml").write_text(f'[model]\nfile = "{calibrated}"\n')
    assert read_config(kind(tmp_path / "line.toml")).model == calibrated
    assert next(check_computer(kind(tmp_path), model)).status == "ok"
