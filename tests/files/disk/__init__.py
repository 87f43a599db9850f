"""Tests of directories and streams."""
