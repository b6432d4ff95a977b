"""GGUF files without llama.cpp: read, checked, tried in a child process first."""
