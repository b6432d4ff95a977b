"""Tests that take minutes or gigabytes: pytest -m slow."""
