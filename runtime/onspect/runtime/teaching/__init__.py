"""A memory of good parts, taught with numpy, OpenCV and onnxruntime alone."""
