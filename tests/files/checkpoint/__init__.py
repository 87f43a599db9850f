"""Tests of planc.files.checkpoint."""
