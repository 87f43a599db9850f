"""Tests of dependency groups and what they follow from."""
