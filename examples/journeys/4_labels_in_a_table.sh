# Three pictures of each part, and a table that says what each picture shows: photos/ and list.csv.
onspect split photos --labels list.csv --group '^(part[0-9]+)_' -o parts
onspect teach parts/train/good --group '^(part[0-9]+)_' -o part.onnx
onspect evaluate part.onnx parts --group '^(part[0-9]+)_' -o report
