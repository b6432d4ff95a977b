"""ONNX Runtime's C library without its Python package, as in an Android app."""
