"""Offline tools that make model files from model files; nothing in the runtime imports them."""
