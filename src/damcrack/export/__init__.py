"""A trained classifier as one ONNX file, checked against the network it came from; torch and onnx."""
