"""Benchmarks: each compares two ways in one run and prints one JSON object a line. Nothing here asserts a time."""
