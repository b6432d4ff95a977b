"""Matrices in 4 bits, fitted to text."""
