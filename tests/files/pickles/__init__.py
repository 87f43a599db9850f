"""Tests of weights in pickle files."""
