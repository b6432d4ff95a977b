"""Folders for ONNX Runtime: graphs of any length, written and checked."""
