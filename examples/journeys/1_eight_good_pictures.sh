# Eight pictures of good parts, and no defect: folders good/ and new/.
onspect teach good -o part.onnx
onspect score part.onnx new -o verdicts.jsonl --overlays overlays
