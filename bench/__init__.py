"""Benchmarks: one file per stage for pytest-benchmark, and the whole pipeline end to end."""
