"""Tests of the formats of plans, masks, checkpoints and latency tables."""
