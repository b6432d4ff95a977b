"""GGUF files without llama.cpp: read, checked, previewed, tried in a child process first."""
