"""Tests of planc.criteria.calibration."""
