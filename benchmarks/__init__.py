"""Benchmarks: ratios, printed, never asserted. Each runs as `python -m benchmarks.NAME`."""
