"""Tests of planc.analysis.constants."""
