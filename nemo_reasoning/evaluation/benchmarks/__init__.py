"""Benchmarks: their questions, read from the layouts in which they are published."""
