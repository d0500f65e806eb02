"""Models as ONNX files, and what answers from them."""
