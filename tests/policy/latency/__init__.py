"""Tests of planc.latency."""
