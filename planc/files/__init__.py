"""Files: plans, masks, checkpoints and tensors on disk, with limits and atomic replacement."""
