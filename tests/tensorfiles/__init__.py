"""Tests of planc.tensorfiles."""
