"""Tests of planc.checkpoint."""
