"""Padded models: they cost what a large model costs and say what a small one says."""
