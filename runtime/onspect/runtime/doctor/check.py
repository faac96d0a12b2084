"""All checks in their order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from onspect.runtime.doctor.extras import check_extras
from onspect.runtime.doctor.findings import Finding
from onspect.runtime.doctor.machine import check_cameras, check_clock, check_disk, check_gentl, check_processor
from onspect.runtime.doctor.packages import check_onnxruntime, check_opencv, check_openvino, check_python
from onspect.runtime.errors import ModelFileError, OnspectError


def check_computer(folder: Path | str, model: Path | str | None = None) -> Iterator[Finding]:
    """Check Python, libraries, machine, cameras, and a model file if one is given.

    Checks that need a broken library are left out.

    Parameters
    ----------
    folder
        Folder in which 32 MB are written and removed, to measure the disk.
    model
        The model file; None for none.

    Returns
    -------
    Iterator[Finding]
        The findings.
    """
    yield check_python()
    broken = False
    for finding in (*check_opencv(), *check_onnxruntime()):
        broken = broken or finding.status == "broken"
        yield finding
    yield check_openvino()
    yield from check_extras()
    yield check_processor()
    yield check_disk(Path(folder))
    yield check_clock()
    if not broken:
        yield check_cameras()
    yield from check_gentl()
    if model is not None and not broken:
        yield check_model(Path(model))


def check_model(path: Path) -> Finding:
    """Load a model file, and judge a grey frame with it.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    Finding
        The finding.
    """
    import numpy as np

    from onspect.runtime.inspection.inspector import Inspector
    from onspect.runtime.model.file import read_model_file
    from onspect.runtime.model.session import load_model

    name = f"model {path.name}"
    try:
        file = read_model_file(path)
        preprocess = file.info.preprocess
        size = f"{preprocess.width}x{preprocess.height} {'mono' if preprocess.channels == 1 else 'colour'}"
        if file.info.threshold is None:
            loaded = load_model(file)
            detail = f"{size}, loads on {loaded.provider}, has no threshold yet"
            return Finding(name, "warning", detail, f"onspect calibrate {path} DATA")
        inspector = Inspector(path)
        limits = preprocess.source
        height = preprocess.height if limits.height is None else limits.height[0]
        width = preprocess.width if limits.width is None else limits.width[0]
        channels = preprocess.accepted_channels[0]
        verdict = inspector.inspect(
            np.full((height, width) if channels == 1 else (height, width, channels), 128, np.uint8)
        )
    except OnspectError as error:
        if _is_base_file(path):
            return Finding(name, "ok", "a base file for 'onspect teach --base', not damaged")
        return Finding(name, "broken", str(error))
    if verdict.score is None:
        return Finding(name, "broken", f"a grey frame gives no score: {verdict.reason}", "export it again")
    return Finding(
        name,
        "ok",
        f"{size}, on {inspector.provider}, threshold {file.info.threshold.score:.6g}; a grey frame is judged in "
        f"{verdict.latency_ms:.0f} ms",
    )


def _is_base_file(path: Path) -> bool:
    from onspect.runtime.teaching.base_file import read_base_file

    try:
        read_base_file(path)
    except ModelFileError:
        return False
    return True
