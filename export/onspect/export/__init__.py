"""Turn a trained run into one ONNX model file, and prove that the file does what the trained model does."""
