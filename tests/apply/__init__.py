"""Tests of the executors: tensors, modules, state dicts, attributes."""
