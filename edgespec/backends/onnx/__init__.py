"""Models in folders of ONNX graphs, run by ONNX Runtime."""
