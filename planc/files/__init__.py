"""Files: plans, masks, checkpoints and tensors on disk, read within limits and replaced atomically."""
