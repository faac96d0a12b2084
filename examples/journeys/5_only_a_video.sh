# A video of good parts that pass, and one of today: good.avi and today.avi.
onspect capture good.avi -o parts/train/good
onspect teach parts/train/good -o part.onnx
onspect run part.onnx today.avi --sink jsonl:verdicts.jsonl
