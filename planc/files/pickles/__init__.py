"""Weights in pickle files: PyTorch archives and distributed checkpoints."""
