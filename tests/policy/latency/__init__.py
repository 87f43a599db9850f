"""Tests of planc.policy.latency."""
