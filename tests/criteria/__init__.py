"""Tests of planc.criteria."""
