"""Tests of planc.plan.review."""
