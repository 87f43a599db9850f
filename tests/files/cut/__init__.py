"""Tests of planc.files.cut."""
