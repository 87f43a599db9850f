"""Tests of planc.streaming."""
