"""Tests of planc.constants."""
