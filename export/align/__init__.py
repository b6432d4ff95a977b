"""Aligns a drafter with its target: answers of the target, low-rank adapters of all layers."""
