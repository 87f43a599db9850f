"""Tests of the live module as plain data."""
