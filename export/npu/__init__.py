"""Folders for NPUs: graphs of fixed shapes, quantized, compiled ahead, checked."""
