"""What do the outputs `reconstruction` and `latent` cost a run that does not request them?

Times the model file against the same graph reduced to `score` and `error_map`, in turns, one thread each, and prints
the ratio of medians. Needs onspect[cpu,train].

    python benchmarks/unused_outputs.py part.onnx [--runs 400] [--json result.json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx.utils
import onnxruntime


def open_session(path: Path) -> onnxruntime.InferenceSession:
    """Open a model on one thread that does not spin."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def main() -> None:
    """Run the comparison and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cut = Path(folder) / "cut.onnx"
        onnx.utils.extract_model(arguments.model, cut, ["image"], ["score", "error_map"])
        sessions = {"as exported": open_session(arguments.model), "score and map only": open_session(cut)}
    shape = sessions["as exported"].get_inputs()[0].shape[1:]
    image = np.random.default_rng(0).integers(0, 255, (1, *shape), np.uint8)
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for turn in range(arguments.runs + 20):
        for name, session in sessions.items():
            started = time.perf_counter()
            session.run(["score", "error_map"], {"image": image})
            if turn >= 20:
                times[name].append((time.perf_counter() - started) * 1000.0)
    medians = {name: statistics.median(values) for name, values in times.items()}
    ratio = medians["as exported"] / medians["score and map only"]
    for name, values in times.items():
        low, high = np.percentile(values, [10, 90])
        print(f"{name:<20} median {medians[name]:.3f} ms, 10% to 90% {low:.3f} to {high:.3f} ms")
    print(f"{'ratio':<20} {ratio:.3f} (1.000: the unused outputs are free)")
    if arguments.json:
        arguments.json.write_text(json.dumps({"medians_ms": medians, "ratio": ratio, "runs": arguments.runs}))


if __name__ == "__main__":
    main()
