"""Tests of the plan as a value."""
