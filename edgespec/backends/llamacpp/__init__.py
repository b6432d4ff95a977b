"""Models in GGUF files, run by llama.cpp; all ctypes is here."""
