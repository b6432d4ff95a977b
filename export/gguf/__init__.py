"""GGUF files as a whole: opened, replaced, quantized."""
