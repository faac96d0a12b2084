"""Loops over image files that benchmarks compare, each in its own process; `race.py` starts them.

Called with the name of a loop, a calibrated model file and a JSON file of image paths. Each line on stdin starts one
pass over the images, and one line of JSON comes back: seconds by the clock, seconds of processor time, number of
verdicts ``ng``, and other results of the loop. Each loop imports only its own packages, so onspect need not be
installed.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

Pass = Callable[[], dict[str, Any]]
"""Goes over all images once; returns at least how many of them were ``ng``."""


def onspect(model: str, paths: Sequence[str]) -> Pass:
    """`onspect score`: on all cores, each verdict a line of JSON."""
    from onspect.runtime.images.decode import quieten_opencv
    from onspect.runtime.inspection.inspector import Inspector

    quieten_opencv()
    inspector = Inspector(model, provider="cpu")

    def judge_all() -> dict[str, Any]:
        bad = 0
        with Path(os_devnull()).open("w", encoding="utf-8") as file:
            for verdict in inspector.inspect_many(paths):
                bad += verdict.verdict == "ng"
                file.write(verdict.to_json() + "\n")
        return {"ng": bad}

    return judge_all


def os_devnull() -> str:
    """Return a file that discards written lines."""
    import os

    return os.devnull


def stages(model: str, paths: Sequence[str]) -> Pass:
    """One image after the other on one thread, each stage timed. No arrangement of threads can be faster."""
    from onspect.runtime.images.decode import quieten_opencv, read_image
    from onspect.runtime.inspection.inspector import Inspector
    from onspect.runtime.inspection.regions import find_regions
    from onspect.runtime.inspection.verdict import decide

    quieten_opencv()
    inspector = Inspector(model, provider="cpu")
    cut = inspector.threshold

    def judge_all() -> dict[str, Any]:
        bad, sums, clock = 0, [0.0] * 4, time.perf_counter
        for path in paths:
            start = clock()
            frame = read_image(path)
            decoded = clock()
            batch = inspector.prepare(frame)[None]
            resized = clock()
            scored = inspector.infer(batch)
            inferred = clock()
            verdict = decide(float(scored.score[0]), cut)
            height, width = frame.shape[:2]
            find_regions(scored.error_map[0], cut, width, height, verdict)
            done = clock()
            bad += verdict == "ng"
            for number, took in enumerate((decoded - start, resized - decoded, inferred - resized, done - inferred)):
                sums[number] += took
        return {"ng": bad, "stages": dict(zip(("decode", "resize", "infer", "post"), sums, strict=True))}

    return judge_all


def naive(model: str, paths: Sequence[str], threads: int = 0) -> Pass:
    """The simple loop: read, resize, run, compare; onnxruntime and OpenCV with default threads."""
    import cv2
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    if threads:
        cv2.setNumThreads(threads)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    card = json.loads(session.get_modelmeta().custom_metadata_map["onspect"])

    def judge_all() -> dict[str, Any]:
        scores = (session.run(["score", "error_map"], {"image": image})[0][0] for image in naive_inputs(paths, card))
        return {"ng": sum(bool(score >= card["threshold"]["score"]) for score in scores)}

    return judge_all


def naive_one_thread(model: str, paths: Sequence[str]) -> Pass:
    """The simple loop, with one thread for onnxruntime and OpenCV."""
    return naive(model, paths, threads=1)


def naive_inputs(paths: Sequence[str], card: dict[str, Any]) -> Iterator[Any]:
    """Yield each image in the form of the graph's input, uint8 [1, height, width, channels]."""
    import cv2

    preprocess = card["preprocess"]
    mode = cv2.IMREAD_GRAYSCALE if preprocess["channels"] == 1 else cv2.IMREAD_COLOR
    size = preprocess["width"], preprocess["height"]
    for path in paths:
        picture = cv2.imread(path, mode)
        assert picture is not None
        image = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        yield image.reshape(1, preprocess["height"], preprocess["width"], preprocess["channels"])


def openvino(model: str, paths: Sequence[str]) -> Pass:
    """The same loop with OpenVINO's own runtime on the same ONNX file, with default threads."""
    import openvino as ov

    core = ov.Core()
    compiled = core.compile_model(core.read_model(model), "CPU")
    request = compiled.create_infer_request()
    card = read_card(model)

    def judge_all() -> dict[str, Any]:
        scores = (request.infer({"image": image})["score"][0] for image in naive_inputs(paths, card))
        return {"ng": sum(bool(score >= card["threshold"]["score"]) for score in scores)}

    return judge_all


def torch(model: str, paths: Sequence[str]) -> Pass:
    """The same loop with torch and the network that the file was exported from: model is FILE=RUN."""
    import torch as library

    from onspect.export.graph import InspectionGraph
    from onspect.runtime.model.file import read_model_info
    from onspect.training.checkpoint import load_trained

    file, _, run = model.partition("=")
    info, trained = read_model_info(file), load_trained(Path(run))
    graph = InspectionGraph(trained.encoder, trained.decoder, trained.record.config.network, info.score).eval()
    card = info.to_dict()

    def judge_all() -> dict[str, Any]:
        with library.inference_mode():
            scores = [float(graph(library.from_numpy(image))[0]) for image in naive_inputs(paths, card)]
        return {"ng": sum(score >= card["threshold"]["score"] for score in scores)}

    return judge_all


def read_card(model: str) -> dict[str, Any]:
    """Return the metadata of a model file, without onspect."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return dict(json.loads(session.get_modelmeta().custom_metadata_map["onspect"]))


LOOPS: dict[str, Callable[[str, Sequence[str]], Pass]] = {
    loop.__name__: loop for loop in (onspect, stages, naive, naive_one_thread, openvino, torch)
}


def main() -> None:
    """Make a pass over the images for each line on stdin."""
    name, model, list_file = sys.argv[1:]
    run = LOOPS[name](model, json.loads(Path(list_file).read_text(encoding="utf-8")))
    for _ in sys.stdin:
        wall, processor = time.perf_counter(), time.process_time()
        found = run()
        found |= {"wall": time.perf_counter() - wall, "processor": time.process_time() - processor}
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
