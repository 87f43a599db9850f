"""Benchmarks that print both sides, measured in the same run."""
