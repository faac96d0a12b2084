"""Turn a trained run into one ONNX model file, and prove that the file does what the trained model does."""

import onspect.runtime  # noqa: F401 - before onnxruntime, whose reports over the network it turns off
