"""Tests of the graph's vocabulary."""
