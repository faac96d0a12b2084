# A box without PyTorch (pip install 'onspect[cpu]'), the base file from the workstation, ten good parts: base.onnx, good/ and new/.
onspect doctor base.onnx
onspect teach good --base base.onnx -o part.onnx
onspect score part.onnx new -o verdicts.jsonl --overlays overlays
onspect run part.onnx new --sink csv:verdicts.csv
