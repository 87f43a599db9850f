"""Tests of planc.calibrate."""
