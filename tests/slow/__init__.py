"""Tests that take minutes or gigabytes; tests/README.md says how to run them."""
