# One folder with good_*.png and bad_*.png: photos/.
onspect split photos -o parts
onspect teach parts/train/good -o part.onnx
onspect evaluate part.onnx parts -o report
