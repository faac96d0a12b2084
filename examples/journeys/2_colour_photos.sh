# Forty colour photos of good parts in several sizes, as a camera or a telephone takes them: folders good/ and new/.
onspect teach good -o part.onnx
onspect score part.onnx new -o verdicts.jsonl --overlays overlays
