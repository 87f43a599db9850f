"""Tests of planc.policy."""
