"""Tests of planc.files.tensors."""
