"""Tests of errors and their text."""
